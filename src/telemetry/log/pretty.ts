/** The form of the log for terminals. A file of its own, which is loaded only there. */
export { prettyFactory } from 'pino-pretty';
