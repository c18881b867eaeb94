//! The registry's measurements in their order: floors first, then each measure, the contenders in
//! turn, and at the end the table and the file.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use kuboard_testkit::certificate::{Authority, Certificate};
use kuboard_testkit::tool;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contender::{Kind, Setup};
use crate::floors::Floors;
use crate::payload::Payload;
use crate::plan::Plan;
use crate::report::{self, Row};
use crate::{blobs, coalescing, first_byte, idle, machine, manifests, memory, pushes, tls, wire};

/// What all measures share.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) floors: Floors,
    pub(crate) certificate: Certificate,
    pub(crate) tls_client: tls::Client,
    /// For payloads and stores; goes with the run.
    pub(crate) folder: TempDir,
    stock: OnceLock<Stock>,
}

/// Stores that hold the blobs of the download measures, one for each contender.
pub(crate) struct Stock {
    pub(crate) blob: Payload,
    pub(crate) small: Payload,
    folder: PathBuf,
}

type Measure = fn(&Context<'_>) -> Result<Vec<Row>>;

const MEASURES: [(&str, Measure); 8] = [
    ("blob-plain", blobs::plain),
    ("blob-tls", blobs::tls),
    ("manifest", manifests::run),
    ("push", pushes::run),
    ("memory", memory::run),
    ("coalescing", coalescing::run),
    ("first-byte", first_byte::run),
    ("idle", idle::run),
];

/// Measures, prints and keeps the figures. An error only when something could not be measured; a
/// missed target is a figure like any other.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let kinds = Kind::all();
    let (hardware, versions) = (machine::hardware(), machine::versions(&kinds));
    println!("{hardware:#}\n{versions:#}");
    if !kinds.contains(&Kind::Zot) {
        println!("zot is not installed and has no column; hint: put it in $KUBOARD_TOOLS/bin");
    }
    let folder = tool::folder("bench")?;
    let floors = Floors::measure(plan, folder.path())?;
    println!("\n{}", floors.text());
    let authority = Authority::new(&folder.path().join("authority"))?;
    let context = Context {
        plan,
        kinds,
        floors,
        certificate: authority.issue("server", &["127.0.0.1", "localhost"])?,
        tls_client: tls::Client::new(&authority.file())?,
        folder,
        stock: OnceLock::new(),
    };
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (name, measure) in MEASURES.iter().filter(|(name, _)| plan.wants(name)) {
        match measure(&context) {
            Ok(more) => {
                println!("{}", report::table(&more, &context.kinds));
                rows.extend(more);
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    println!(
        "\nall measures; median (least..most) of the rounds, ratio = how many times better than distribution"
    );
    println!("{}", report::table(&rows, &context.kinds));
    let (passed, judged) = report::score(&rows);
    println!("{passed} of {judged} targets met");
    let result = json!({
        "machine": hardware, "versions": versions, "quick": plan.quick, "rounds": plan.rounds,
        "floors": context.floors.json(), "measures": report::json(&rows), "failures": failures,
    });
    keep("registry", plan, &result)?;
    if !failures.is_empty() {
        bail!("not measured:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// A run of some measures only prints; it would hide the figures of a whole one.
pub(crate) fn keep(subject: &str, plan: &Plan, result: &Value) -> Result<()> {
    if plan.is_partial() {
        return Ok(());
    }
    let folder = machine::root().join("bench/results");
    fs::create_dir_all(&folder)?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let quick = if plan.quick { "-quick" } else { "" };
    let name = format!("{subject}-{date}{quick}.json");
    let file = folder.join(&name);
    fs::write(&file, format!("{result:#}\n"))?;
    println!("kept in bench/results/{name}");
    Ok(())
}

impl Context<'_> {
    /// The filled stores, made on first use.
    pub(crate) fn stock(&self) -> Result<&Stock> {
        if self.stock.get().is_none() {
            // Set once: there is one thread.
            let _ = self.stock.set(Stock::make(self)?);
        }
        self.stock.get().context("no stock")
    }
}

impl Stock {
    fn make(context: &Context<'_>) -> Result<Stock> {
        let folder = context.folder.path();
        let stock = Stock {
            blob: Payload::noise(folder, 10, context.plan.blob)?,
            small: Payload::noise(folder, 11, context.plan.small_blob)?,
            folder: folder.to_owned(),
        };
        for kind in &context.kinds {
            let data = stock.data(*kind);
            let contender = kind.start(Setup { data: Some(&data), ..Setup::default() })?;
            for blob in [&stock.blob, &stock.small] {
                wire::push_blob(contender.address(), blobs::REPOSITORY, blob)
                    .with_context(|| format!("fill {}", kind.name()))?;
            }
        }
        for blob in [&stock.blob, &stock.small] {
            fs::remove_file(&blob.path)?;
        }
        Ok(stock)
    }

    /// The folder of this contender's store.
    pub(crate) fn data(&self, kind: Kind) -> PathBuf {
        self.folder.join(format!("store-{}", kind.name()))
    }
}
