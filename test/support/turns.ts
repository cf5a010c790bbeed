/** The most that the event loop's thread worked in one turn until `stop`, in milliseconds. CPU time: the machine may be busy with others. */
export function watchTurns(): { stop(): number } {
  let longestMs = 0;
  let isStopped = false;
  let before = process.threadCpuUsage();
  const turn = (): void => {
    const { user, system } = process.threadCpuUsage(before);
    longestMs = Math.max(longestMs, (user + system) / 1000);
    before = process.threadCpuUsage();
    if (!isStopped) setImmediate(turn);
  };
  setImmediate(turn);
  return {
    stop() {
      isStopped = true;
      return longestMs;
    },
  };
}
