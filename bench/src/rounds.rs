//! Repetition: the contenders in turn, round after round, so that whatever else the machine does
//! falls on all of them alike.

use std::io::Write;

use anyhow::Result;

use crate::series::Series;

/// Measures each of `contenders` once a round; `measure` gives several figures. The result is a
/// list of series for each contender, in the order of its figures.
pub(crate) fn alternate<T, const N: usize>(
    name: &str,
    rounds: usize,
    contenders: &mut [T],
    mut measure: impl FnMut(&mut T, usize) -> Result<[f64; N]>,
) -> Result<Vec<[Series; N]>> {
    let mut series: Vec<[Series; N]> =
        contenders.iter().map(|_| std::array::from_fn(|_| Series::default())).collect();
    for round in 0..rounds {
        eprint!("\r{name}: round {} of {rounds} ", round + 1);
        // Progress only.
        let _ = std::io::stderr().flush();
        for (contender, own) in contenders.iter_mut().zip(&mut series) {
            for (series, value) in own.iter_mut().zip(measure(contender, round)?) {
                series.push(value);
            }
        }
    }
    eprintln!();
    Ok(series)
}
