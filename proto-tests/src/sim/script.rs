//! What a run consists of: a start, trouble, calm, and the verdict. All of it follows from the topology and the seed.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use margay::rib::Step;

use super::fault::Fault;
use super::invariant;
use super::process::Mistake;
use super::spec::Spec;
use super::world::{Options, World};

/// Longer than anything in margay waits: our own restart's deferral, the peers' restart time, back-off, audits of the kernel.
const CALM: Duration = Duration::from_secs(900);

/// How a run is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Shards of every margay; by the seed if not given.
    pub shards: Option<u16>,
    /// A day of trouble instead of a few minutes.
    pub day: bool,
    /// A mistake to be found.
    pub mistake: Option<Mistake>,
    /// A step of the decision that the oracle gets wrong, to be found.
    pub wrong_step: Option<Step>,
    /// Print everything that happens.
    pub trace: bool,
}

impl Run {
    /// The usual run of a seed.
    pub fn of(seed: u64) -> Self {
        Self { seed, shards: None, day: false, mistake: None, wrong_step: None, trace: false }
    }

    /// One shard for even seeds, three for odd ones, unless said otherwise.
    fn shards(&self) -> u16 {
        self.shards.unwrap_or(if self.seed.is_multiple_of(2) { 1 } else { 3 })
    }
}

/// What a run that went well says.
#[derive(Clone, Debug)]
pub struct Report {
    /// The digest of everything that happened: equal for equal runs.
    pub digest: u64,
    /// Steps taken.
    pub steps: u64,
    /// Virtual time.
    pub time: Duration,
    /// Faults.
    pub faults: usize,
    /// Sessions that came up.
    pub sessions: u64,
    /// Steps of the decision that removed somebody in the end.
    pub decided_at: BTreeSet<Step>,
}

/// What a run that went wrong says.
#[derive(Clone, Debug)]
pub struct Failure {
    /// How to see it again.
    pub command: String,
    /// What does not hold.
    pub what: String,
    /// The last things that happened.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{}", self.what)?;
        write!(f, "{}", self.command)
    }
}

/// Makes a run.
///
/// # Errors
/// Something does not hold; or a machine panicked.
pub fn run(spec: &Spec, run: Run) -> Result<Report, Box<Failure>> {
    let options = Options { seed: run.seed, shards: run.shards(), mistake: run.mistake, print: run.trace };
    let mut world = World::new(spec, options);
    let result = catch_unwind(AssertUnwindSafe(|| play(&mut world, run)));
    let what = match result {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    let mut command = format!("cargo simulate --topology {} --seed {}", spec.name, run.seed);
    if let Some(shards) = run.shards {
        command += &format!(" --shards {shards}");
    }
    if run.day {
        command += " --day";
    }
    Err(Box::new(Failure { command, what, tail: world.trace.tail().cloned().collect() }))
}

fn play(world: &mut World, run: Run) -> Result<Report, String> {
    // Mostly everybody comes up first; sometimes trouble is there from the start.
    let start = if world.dice.below(4) == 0 { 0 } else { 15 + world.dice.below(45) };
    pass(world, Duration::from_secs(start))?;
    let faults = trouble(world, run.day)?;
    let now = world.now();
    world.trace.line(now, "calm");
    // The longest of what was begun is over by then; the calm begins when the last fault has ended.
    pass(world, Duration::from_secs(220))?;
    world.hosts.iter_mut().for_each(|host| {
        host.kernel.fail_any.clear();
        host.kernel.fail.clear();
    });
    pass(world, CALM)?;
    let decided_at = invariant::after_calm(world, run.wrong_step)?;
    Ok(Report {
        digest: world.trace.digest,
        steps: world.trace.steps,
        time: world.now(),
        faults,
        sessions: world.hosts.iter().filter_map(|host| host.process.as_ref()).map(|process| process.ups).sum(),
        decided_at,
    })
}

fn trouble(world: &mut World, day: bool) -> Result<usize, String> {
    let mut faults = 0;
    let end = world.now() + if day { Duration::from_secs(24 * 3600) } else { Duration::from_secs(20 + world.dice.below(400)) };
    // Some runs are hectic, some are quiet.
    let pace = if day { 240_000 } else { [500, 3_000, 20_000][world.dice.below(3) as usize] };
    while world.now() < end && (day || faults < 40) {
        Fault::roll(world).apply(world);
        faults += 1;
        let pause = if world.dice.below(4) == 0 { 0 } else { world.dice.below(pace) };
        pass(world, Duration::from_millis(pause))?;
    }
    Ok(faults)
}

/// Lets time pass, and looks at some host now and then.
fn pass(world: &mut World, length: Duration) -> Result<(), String> {
    let until = world.now() + length;
    while world.now() < until {
        let slice = Duration::from_millis(1 + world.dice.below(30_000));
        let to = until.min(world.now() + slice);
        world.run(to);
        let host = world.dice.below(world.hosts.len() as u64) as usize;
        invariant::always(world, host)?;
    }
    Ok(())
}
