//! Asks for a second opinion on many random worlds: `verdict_oracle [worlds] [seed]`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "its output is what it is for")]

#[path = "../tests/random/oracle.rs"]
mod oracle;
#[path = "../tests/random/mod.rs"]
mod random;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |or: u64| arguments.next().map_or(Ok(or), |it| it.parse());
    let (worlds, seed) = (number(1_000_000)?, number(2)?);
    let started = std::time::Instant::now();
    let agreed = oracle::compare(worlds, seed)?;
    let answer = serde_json::json!({
        "worlds": worlds, "seed": seed, "differences": 0, "milder": 0, "outcomes": agreed,
        "seconds": started.elapsed().as_secs(),
    });
    println!("{answer}");
    Ok(())
}
