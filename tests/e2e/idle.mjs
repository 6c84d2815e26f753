// Tabs that hold nothing but their own locks.
import { expect } from "@playwright/test";

/** Python for a worker: `db` takes no lease unasked, to look for what others committed. */
export const noLookOut = `
for task in list(db._session.loops):
    if task.get_coro().__name__ == "look_out":
        task.cancel()
`;

/** Stops `tab` when it is idle; `other` sees the leases, of which none is in use then for long. */
export async function stopIdle(tab, other) {
  const idle = (options) =>
    expect.poll(() => other.leases(), { intervals: [20], ...options }).toEqual([]);
  await expect(async () => {
    await idle();
    await tab.stop();
    try {
      // It may have taken one just then, to look for what others committed, and keep it while it is
      // stopped. What it asked for last is seen at the second look.
      await other.leases();
      await idle({ timeout: 3_000 });
    } catch (error) {
      tab.resume();
      throw error;
    }
  }).toPass();
}
