/** Connections to our bundle endpoint. Beyond it the oldest goes, so that idle strangers cannot keep others out. */
export const MAX_ENDPOINT_CONNECTIONS = 128;
