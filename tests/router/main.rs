//! Black-box tests of the real binary, against what CONTRACT promises.
//!
//! One test binary, so that it links once. Each module is named for what it
//! protects; each test starts a router of its own through [`harness`], talks
//! to it with raw bytes and looks at what came through.

mod harness;

mod access_log;
mod admin;
mod api_apps;
mod api_backends;
mod api_bulk;
mod api_policies;
mod api_refusals;
mod balance;
mod boot_wait;
mod budget;
mod clock;
mod codes;
mod collected;
mod commands;
mod connections;
mod crash_policies;
mod crashes;
mod crowds;
mod damage;
mod damage_files;
mod ejection;
mod forwarded;
mod framing;
mod frozen;
mod handover;
mod hedging;
mod hostile;
mod hostile_backends;
mod imports;
mod interim;
mod interruptions;
mod kills;
mod limit_sources;
mod limits;
mod memory_shares;
mod named_limits;
mod new_binary;
mod operator;
mod others;
mod overload;
mod probes;
mod propagation;
mod readmission;
mod refused_binary;
mod replay;
mod resets;
mod retries;
mod rights;
mod saturation;
mod services;
mod settings;
mod shrink;
mod shutdown;
mod slow_clients;
mod standby;
mod state_folder;
mod statuses;
mod threads;
mod tries;
mod truth;
mod upgrades;
mod vanishing;
