//! The gRPC contracts of banger: the public API and the private guest protocol.
