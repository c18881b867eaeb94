//! What admission costs: a review at the handler and over HTTP/2 and TLS, with a hundred thousand
//! images known; and whether a second opinion in another language agrees with its verdicts. Both
//! are programs of the crate itself, so that a process measures nothing but what it serves.

use std::process::Command;

use anyhow::{Context, Result, bail};
use kuboard_testkit::tool;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::{machine, registry};

/// A measured quantity, and what it shall be.
struct Figure {
    name: &'static str,
    unit: &'static str,
    value: f64,
    target: Target,
}

enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    fn passes(&self) -> Option<bool> {
        match self.target {
            Target::None => None,
            Target::AtMost(most) => Some(self.value <= most),
            Target::AtLeast(least) => Some(self.value >= least),
        }
    }

    fn line(&self) -> String {
        let target = match self.target {
            Target::None => String::new(),
            Target::AtMost(most) => format!("<= {most}"),
            Target::AtLeast(least) => format!(">= {least}"),
        };
        let verdict = match self.passes() {
            None => "",
            Some(true) => "PASS",
            Some(false) => "MISS",
        };
        let value = format!("{:.1}", self.value);
        format!("{:<44} {value:>12} {:<10} {target:<12} {verdict}", self.name, self.unit)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit, "value": self.value, "passes": self.passes(),
        })
    }
}

/// Measures the handler, prints and keeps the figures.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let (images, reviews) = if plan.quick { (10_000, 20_000) } else { (100_000, 200_000) };
    let hardware = machine::hardware();
    println!("{hardware:#}");
    let told = example("handler_load", &[&images.to_string(), &reviews.to_string()])?;
    let figures = figures(&told)?;
    for figure in &figures {
        println!("{}", figure.line());
    }
    let judged = figures.iter().filter_map(Figure::passes);
    println!("{} of {} targets met", judged.clone().filter(|it| *it).count(), judged.count());
    let measures: Vec<Value> = figures.iter().map(Figure::json).collect();
    let result =
        json!({"machine": hardware, "quick": plan.quick, "measures": measures, "told": told});
    registry::keep("admission", plan, &result)
}

fn figures(told: &Value) -> Result<Vec<Figure>> {
    let figure = |name, unit, path: &str, target| {
        let value = told.pointer(path).and_then(Value::as_f64);
        let value = value.with_context(|| format!("no figure at {path} in {told}"))?;
        Ok::<_, anyhow::Error>(Figure { name, unit, value, target })
    };
    let per_core = Target::AtLeast(10_000.0);
    Ok(vec![
        figure("handler, p50", "us", "/called/p50_us", Target::AtMost(50.0))?,
        figure("handler, p99", "us", "/called/p99_us", Target::AtMost(500.0))?,
        figure("handler, p99.9", "us", "/called/p999_us", Target::AtMost(2000.0))?,
        figure("handler, reviews", "1/s/core", "/called/per_second_and_core", Target::None)?,
        figure("HTTP/2 and TLS, reviews", "1/s/core", "/served/per_second_and_core", per_core)?,
        figure("HTTP/2 and TLS, p99 of 64 at once", "us", "/served/p99_us", Target::None)?,
        figure(
            "memory, facts and policies loaded",
            "MiB",
            "/memory_mib/ready",
            Target::AtMost(64.0),
        )?,
        figure("memory at most, with the load generator", "MiB", "/memory_mib/most", Target::None)?,
    ])
}

/// Compares verdicts on random worlds with a second opinion.
pub(crate) fn oracle(plan: &Plan) -> Result<()> {
    let worlds = if plan.quick { 100_000 } else { 1_000_000 };
    let told = example("verdict_oracle", &[&worlds.to_string()])?;
    println!("{told:#}");
    if told["differences"] != 0 {
        bail!("the second opinion is another one");
    }
    Ok(())
}

/// What a program of the crate prints.
fn example(name: &str, arguments: &[&str]) -> Result<Value> {
    let mut cargo: Command = tool::command("cargo")?;
    cargo.args(["run", "--quiet", "--release", "-p", "kuboard-admission", "--example", name, "--"]);
    let told = tool::output(cargo.args(arguments).current_dir(machine::root()))?;
    let json = told.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    json.with_context(|| format!("no figures in {told:?}"))
}
