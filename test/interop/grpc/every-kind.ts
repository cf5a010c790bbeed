/** What `grpc_peer.py call` says when every kind of call went well. */
export const EVERY_KIND = {
  unary: 'HELLO',
  large: 3_000_000,
  repeated: 200,
  joined: true,
  each: ['A', 'B', 'C'],
  failure: ['FAILED_PRECONDITION', 'asked to fail', 'asked'],
  health: 'SERVING',
};
