/** `run` for the latest state only: never twice at once, and once more where it was asked for meanwhile. */
export function latest(run) {
  let isRunning = false;
  let isAsked = false;
  return async function ask() {
    isAsked = true;
    if (isRunning) return;
    isRunning = true;
    try {
      while (isAsked) {
        isAsked = false;
        await run();
      }
    } finally {
      isRunning = false;
    }
  };
}
