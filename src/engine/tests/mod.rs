//! The real engine over the real store, in virtual time, against a platform and a token source that follow a script.
