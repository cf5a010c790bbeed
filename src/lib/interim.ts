/** As much as whoever answers may say ahead of its answer (RFC 9110, section 15.2). */
const MOST_INTERIM = 16;

/**
 * Calls `tooMany`, once, when more interim responses came for a request of ours than anybody has a use for: who sends them without end would have us
 * read them, and do nothing else, for as long as an answer is waited for.
 */
export function limitInterim(
  request: { on(event: 'information', listener: () => void): unknown },
  tooMany: (detail: string) => void,
): void {
  let count = 0;
  request.on('information', () => {
    count += 1;
    if (count === MOST_INTERIM + 1) tooMany(`more than ${MOST_INTERIM} interim responses came`);
  });
}
