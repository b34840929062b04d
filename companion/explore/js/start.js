/** Bring to life every figure of the page whose script has come. */

import { Stage } from "./stage.js";

export function start(name, figure) {
  for (const host of document.querySelectorAll(`[data-bn-figure][data-name="${name}"]`)) {
    if (!host.shadowRoot) new Stage(host, figure);
  }
}
