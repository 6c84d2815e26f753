// Small helpers for what the parts of the page make.

const still = matchMedia("(prefers-reduced-motion: reduce)");

export function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

/** Mark something as just changed; once, whatever is hidden and shown again later. */
export function flash(changed) {
  changed.animate(
    { backgroundColor: ["var(--flash)", "transparent"] },
    { duration: 1600, easing: still.matches ? "step-end" : "ease-out" },
  );
}
