//! A run under way: which sessions do what in which phase, and what the speaker uses for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::apart::{Apart, Report, Task};
use super::meter::{Goal, Heard};
use super::run::{Prepared, Row};
use super::scenario::{Meanwhile, Peer, Phase, Scenario};
use super::speaker::Running;
use super::usage::{self, Usage};
use super::world::{Pace, World};

/// See the module.
pub(super) struct Stage<'a> {
    scenario: Scenario,
    running: &'a Running,
    here: World,
    apart: Option<Apart>,
    limit: Duration,
    connected: bool,
}

/// Between two looks at what the bystander holds.
const LOOK: Duration = Duration::from_millis(2);

/// What a phase says of itself.
#[derive(Debug, Default)]
struct Course {
    began: Option<Instant>,
    seconds: Option<f64>,
    latency: Option<(f64, f64)>,
    rounds: usize,
    apart: Report,
}

impl<'a> Stage<'a> {
    pub fn new(prepared: &Prepared, running: &'a Running, limit: Duration) -> Result<Self> {
        let scenario = prepared.scenario;
        let first = scenario.all_senders();
        let is_apart = |number: usize| scenario.apart > 0 && (number == 0 || (first..first + scenario.apart).contains(&number));
        let (apart, here): (BTreeMap<usize, Peer>, BTreeMap<usize, Peer>) =
            scenario.peers().into_iter().enumerate().partition(|(number, _)| is_apart(*number));
        let apart = if apart.is_empty() { None } else { Some(Apart::start(prepared, apart, limit)?) };
        Ok(Self { scenario, running, here: World::new(prepared, here, limit, false), apart, limit, connected: false })
    }

    pub async fn phase(&mut self, phase: Phase) -> Result<Row> {
        if !std::mem::replace(&mut self.connected, true) && !self.scenario.is_mesh() {
            self.here.connect(false);
            let (here, apart) = tokio::join!(self.here.until_up(), ask(self.apart.as_ref(), Task::Connect));
            here.and(apart)?;
        }
        usage::forget_peaks(self.running.pid());
        let (before, generator) = (self.running.usage()?, usage::own_cpu());
        let began = Instant::now();
        let course = self.course(phase).await?;
        let seconds = course.seconds.unwrap_or_else(|| course.began.unwrap_or(began).elapsed().as_secs_f64());
        let done = self.running.usage()?;
        let (here, apart) = tokio::join!(self.here.until_quiet(), ask(self.apart.as_ref(), Task::Calm));
        let apart = here.and(apart)?;
        let mut row = self.row(seconds, [before, done, self.running.usage()?], usage::own_cpu() - generator)?;
        if let Phase::Idle(_) = phase {
            row.idle = Some(100.0 * row.cpu / began.elapsed().as_secs_f64());
        }
        let heard = if course.apart.heard == Heard::default() { apart.heard } else { course.apart.heard };
        row.messages += heard.messages;
        row.octets += heard.octets;
        row.announced += heard.announced;
        row.again += heard.again;
        row.withdrawn += heard.withdrawn;
        let silence = self.here.shared().meter.borrow().silence().max(course.apart.silence).max(apart.silence);
        row.silence = (self.scenario.idlers > 0).then_some(silence.as_secs_f64());
        row.sessions += apart.up;
        Ok(Row { latency: course.latency, rounds: course.rounds, ..row })
    }

    async fn course(&mut self, phase: Phase) -> Result<Course> {
        let mut course = Course::default();
        match phase {
            Phase::Feed if self.scenario.is_mesh() => {
                self.here.aim(Goal::Full, false);
                self.here.connect(false);
                self.here.until_arrived().await?;
                course.began = self.here.began();
            }
            Phase::Feed => course.apart = self.tell(if self.scenario.same { Goal::Right } else { Goal::Full }).await?,
            Phase::Withdraw => course.apart = self.tell(Goal::Empty).await?,
            Phase::Late => self.join().await?,
            Phase::Churn(meanwhile) => course = self.churn(meanwhile).await?,
            Phase::Idle(seconds) => {
                self.here.aim(Goal::Full, false);
                sleep(Duration::from_secs(seconds)).await;
                self.here.check()?;
            }
        }
        Ok(course)
    }

    /// All senders say everything, or withdraw it.
    async fn tell(&self, goal: Goal) -> Result<Report> {
        let here = async {
            self.here.aim(goal, false);
            self.here.say(|feed| if goal == Goal::Empty { &feed.withdraw } else { &feed.announce }).await?;
            self.here.until_arrived().await
        };
        let (here, apart) = tokio::join!(here, ask(self.apart.as_ref(), Task::Tell(goal)));
        here.and(apart)
    }

    /// Those who come late do, until they have everything.
    async fn join(&mut self) -> Result<()> {
        self.here.aim(Goal::Full, true);
        self.here.connect(true);
        self.here.until_arrived().await
    }

    async fn churn(&mut self, meanwhile: Meanwhile) -> Result<Course> {
        let pace = Arc::new(Pace::default());
        let Some(apart) = self.apart.take() else {
            ensure!(meanwhile == Meanwhile::Nothing, "{meanwhile:?} while what is timed has no thread of its own");
            pace.over.store(true, Ordering::Relaxed);
            return Ok(Course { latency: Some(self.here.churn(&pace).await?), ..Course::default() });
        };
        let mut course = Course::default();
        let began = Instant::now();
        let here = async {
            course.rounds = self.meanwhile(meanwhile, &pace).await?;
            course.seconds = (meanwhile != Meanwhile::Nothing).then(|| began.elapsed().as_secs_f64());
            pace.over.store(true, Ordering::Relaxed);
            anyhow::Ok(())
        };
        // Whichever fails first: the other one would wait for it.
        let (_, report) = tokio::try_join!(here, apart.ask(Task::Churn(Arc::clone(&pace))))?;
        course.latency = report.latency;
        course.apart = apart.ask(Task::Settle).await?;
        self.apart = Some(apart);
        Ok(course)
    }

    /// What is done while single changes are timed; how often.
    async fn meanwhile(&mut self, meanwhile: Meanwhile, pace: &Pace) -> Result<usize> {
        let mut rounds = 1;
        match meanwhile {
            Meanwhile::Nothing => {
                self.here.aim(Goal::Full, false);
                return Ok(0);
            }
            Meanwhile::Join => self.join().await?,
            Meanwhile::Refresh => {
                self.here.shared().meter.borrow_mut().forget();
                self.here.aim(Goal::Full, false);
                self.here.refresh().await?;
                self.here.until_arrived().await?;
            }
            Meanwhile::Reload => {
                self.here.aim(Goal::Full, false);
                rounds = 0;
                let (kept, all) = (self.scenario.told_by(0).len(), self.scenario.all_ipv4().len());
                while !pace.enough.load(Ordering::Relaxed) {
                    self.here.say(|feed| &feed.withdraw).await?;
                    self.until_held(pace, kept).await?;
                    self.here.say(|feed| &feed.announce).await?;
                    self.until_held(pace, all).await?;
                    rounds += 1;
                }
            }
        }
        Ok(rounds)
    }

    /// The bystander, who looks at each change, holds so many prefixes.
    async fn until_held(&self, pace: &Pace, prefixes: usize) -> Result<()> {
        let end = Instant::now() + self.limit;
        while pace.held.load(Ordering::Relaxed) != prefixes {
            self.here.check()?;
            let held = pace.held.load(Ordering::Relaxed);
            ensure!(Instant::now() < end, "the bystander holds {held} prefixes, not {prefixes}, within {:?}", self.limit);
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn row(&self, seconds: f64, [before, done, quiet]: [Usage; 3], generator_cpu: f64) -> Result<Row> {
        let meter = self.here.shared().meter.borrow();
        let heard = meter.heard();
        ensure!(meter.away() == 0, "receivers have lost again what they had");
        Ok(Row {
            seconds,
            cpu_until_done: done.cpu - before.cpu,
            cpu: quiet.cpu - before.cpu,
            generator_cpu,
            peak: quiet.peak,
            resident: quiet.resident,
            messages: heard.messages,
            octets: heard.octets,
            announced: heard.announced,
            again: heard.again,
            withdrawn: heard.withdrawn,
            sessions: self.here.shared().up.get(),
            ..Row::default()
        })
    }
}

async fn ask(apart: Option<&Apart>, task: Task) -> Result<Report> {
    match apart {
        Some(apart) => apart.ask(task).await.context("apart"),
        None => Ok(Report::default()),
    }
}
