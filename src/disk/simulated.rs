//! A disk in memory that can lose what was not synced.
