//! The tool against the floor, side by side on a real Incus daemon: N clones of a snapshot, three files in each,
//! started, and a snapshot taken; then a plan that finds nothing to do.
//!
//! The floor is the raw API: the fewest calls that give the same result, on keep-alive connections, so many
//! workers at once as the daemon serves best. It neither plans, nor labels, nor locks, nor verifies. Only ratios
//! within one run mean something.
//!
//! ```sh
//! eval "$(tests/incus/daemon start)"
//! cargo bench --bench speed            # 1, 10 and 50 sandboxes
//! cargo bench --bench speed -- 10 50   # these
//! ```

#![allow(clippy::print_stdout, reason = "what it measures is its output")]

#[path = "speed/floor.rs"]
mod floor;
#[path = "speed/http.rs"]
mod http;
#[path = "speed/tool.rs"]
mod tool;

use std::time::{Duration, Instant};

/// How often each measurement is taken; the best counts, for a shared machine only ever adds.
const ROUNDS: usize = 3;

/// What one side took.
struct Times {
    apply: Duration,
    no_op: Duration,
}

fn main() {
    let socket = match std::env::var("INCUS_SOCKET") {
        Ok(socket) => socket,
        Err(_) => {
            println!("no INCUS_SOCKET: start a daemon first, with `eval \"$(tests/incus/daemon start)\"`");
            std::process::exit(1);
        }
    };
    let counts: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let counts = if counts.is_empty() { vec![1, 10, 50] } else { counts };
    println!(
        "{:>4}  {:>22}  {:>22}  {:>22}  {:>8}",
        "", "floor apply / no-op", "tool apply / no-op", "ratio", "memory"
    );
    for count in counts {
        tool::prepare(&socket);
        let floors: Vec<Times> = (0..ROUNDS).map(|_| floor::run(&socket, count)).collect();
        let tools: Vec<(Times, u64)> = (0..ROUNDS).map(|_| tool::run(&socket, count)).collect();
        tool::clean(&socket);
        let floor = best(floors.iter());
        let tool = best(tools.iter().map(|(times, _)| times));
        let memory = tools.iter().map(|(_, memory)| *memory).max().unwrap_or_default();
        println!(
            "{count:>4}  {:>12.2} / {:>5.3} s  {:>12.2} / {:>5.3} s  {:>12.2} / {:>5.2} x  {:>4} MiB",
            floor.apply.as_secs_f64(),
            floor.no_op.as_secs_f64(),
            tool.apply.as_secs_f64(),
            tool.no_op.as_secs_f64(),
            tool.apply.as_secs_f64() / floor.apply.as_secs_f64(),
            tool.no_op.as_secs_f64() / floor.no_op.as_secs_f64(),
            memory / 1024
        );
    }
}

fn best<'a>(times: impl Iterator<Item = &'a Times> + Clone) -> Times {
    let least = |of: fn(&Times) -> Duration| times.clone().map(of).min().unwrap_or_default();
    Times {
        apply: least(|times| times.apply),
        no_op: least(|times| times.no_op),
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
