//! Lanes, gates, pools, settling and drain.

mod evidence;
mod facts;
mod gate;
mod hold;
mod judge;
mod lane;
mod limit;
mod rate;
mod scheduler;
mod session;
mod words;
