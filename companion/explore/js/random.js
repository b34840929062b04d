/** `count` whole numbers from 0 to `below` − 1, the same on every visit. */
export function draws(seed, below, count) {
  // The linear congruential generator of "Numerical Recipes"; its high bits are good enough to draw.
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  });
}
