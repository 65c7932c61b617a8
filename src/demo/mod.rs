//! What `worker demo` shows: a real screen recording on its way through the queue.

pub mod recording;
