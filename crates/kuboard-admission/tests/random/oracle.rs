//! Random worlds through the verdict and through its second opinion in Python, side by side.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::random::{Case, Noise, told, worsen};

/// Worlds of each outcome, once both agree on all of them.
pub(crate) type Agreed = BTreeMap<String, u64>;

/// Compares `worlds` random worlds, and each with a worse one; an error shows the first on which
/// the two do not agree, or whose worse one is judged milder.
pub(crate) fn compare(worlds: u64, seed: u64) -> Result<Agreed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/verdict.py");
    let mut python = Command::new("python3")
        .arg(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3 does not start; hint: install Python 3")?;
    let (input, output) = (python.stdin.take(), python.stdout.take());
    let input = input.context("no standard input")?;
    let output = output.context("no standard output")?;
    let writer = thread::spawn(move || -> Result<()> {
        let (mut noise, mut input) = (Noise(seed), BufWriter::new(input));
        for _ in 0..worlds {
            serde_json::to_writer(&mut input, &Case::random(&mut noise))?;
            input.write_all(b"\n")?;
        }
        Ok(input.flush()?)
    });
    let (mut noise, mut agreed, mut seen) = (Noise(seed), Agreed::new(), 0);
    for line in BufReader::new(output).lines() {
        let theirs: Value = serde_json::from_str(&line?)?;
        let case = Case::random(&mut noise);
        // Both ways to keep facts, in turn.
        let ours = told(&case.verdict(seen % 2 == 0));
        if ours != theirs {
            let world = serde_json::to_string_pretty(&case)?;
            bail!("world {seen}: {world}\nwe say   {ours}\nthey say {theirs}");
        }
        let (mut worse, before) = (case.clone(), case.verdict(false).outcome);
        if worsen(&mut worse, &mut Noise(seed ^ seen)) {
            let after = worse.verdict(false).outcome;
            ensure!(after >= before, "{before:?} became {after:?}: {case:?}, worse: {worse:?}");
        }
        let outcome = ours["outcome"].as_str().unwrap_or_default().to_owned();
        *agreed.entry(outcome).or_default() += 1;
        seen += 1;
    }
    let written = writer.join();
    ensure!(python.wait()?.success() && seen == worlds, "python ended after {seen} worlds");
    written.ok().context("the writer panicked")??;
    Ok(agreed)
}
