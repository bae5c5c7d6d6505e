// Making elements: text is always text, never markup, whatever a class or a file is called.

/** make("p", {className: "small", "aria-label": …}, child, …): properties by their own names, attributes with a dash. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key === "role" || key.includes("-")) element.setAttribute(key, value);
    else if (key === "data") Object.assign(element.dataset, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Let arrow keys move the focus among the buttons of a group, of which Tab reaches one. */
export function roving(group, selector, chosen = 0) {
  const all = () => [...group.querySelectorAll(selector)];
  all().forEach((element, at) => { element.tabIndex = at === chosen ? 0 : -1; });
  group.onkeydown = (event) => {
    const elements = all(), at = elements.indexOf(event.target.closest(selector));
    if (at < 0) return;
    const across = Math.max(1, elements.findIndex((element) => element.offsetTop > elements[0].offsetTop));
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -at, End: elements.length - 1 - at };
    const to = at + (moves[event.key] ?? 0);
    if (!(event.key in moves)) return;
    event.preventDefault();
    if (to < 0 || to >= elements.length) return;
    elements.forEach((element, number) => { element.tabIndex = number === to ? 0 : -1; });
    elements[to].focus();
  };
}
