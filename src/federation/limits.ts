/** Connections to our bundle endpoint, where the process has descriptors for so many. */
export const MOST_ENDPOINT_CONNECTIONS = 128;
