/** What several commands say of their options. */

export const WHERE_ASKED = 'its configuration file (YAML), which says where it is asked';
export const ADMIN = 'where its admin listener is (Unix socket or loopback), if not as in the file';
