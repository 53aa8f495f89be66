//! What waits in the lab until nothing else can go on.
//!
//! The runtime reports when it has nothing left to run, before its clock moves. Then one of those that wait
//! goes on: the one that waited first, or one that is chosen.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use cutpoint_trace::Entry;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::kit::points::PointHold;
use crate::tracer::Tracer;

/// How long a hold takes outside the lab, where no scheduler knows whether any other task can run.
const OUTSIDE: Duration = Duration::from_millis(1);

/// A task that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedTask {
    /// A number for the task that waits; 0 outside of all tasks.
    pub task: u64,
    /// The point at which it does.
    pub label: &'static str,
}

/// What is known when a task is chosen.
pub struct ChoicePoint<'a> {
    /// Who waits, the longest first.
    pub waiting: &'a [ParkedTask],
    /// What has happened so far.
    pub entries: &'a [Entry],
    /// How far the clock has come.
    pub elapsed: Duration,
}

/// Says which of those that wait go on, one right after the other.
pub type ChooseTasks = Box<dyn FnMut(ChoicePoint<'_>) -> Vec<usize> + Send>;

/// Under this name what the client does by itself waits to be chosen.
pub const CLIENT: &str = "client";

thread_local! {
    static SCHEDULER: RefCell<Option<Arc<Scheduler>>> = const { RefCell::new(None) };
}

fn current() -> Option<Arc<Scheduler>> {
    SCHEDULER.with(|quiet| quiet.borrow().clone())
}

/// Waits until nothing else can go on.
pub(crate) fn wait(label: &'static str) -> PointHold {
    match current() {
        Some(quiet) => quiet.place(label),
        None => Box::pin(tokio::time::sleep(OUTSIDE)),
    }
}

/// The place where a task waits to be chosen; none unless every task has to.
pub(crate) fn parked(label: &'static str) -> Option<PointHold> {
    let quiet = current()?;
    let chosen = lock(&quiet.chooser).is_some();
    chosen.then(|| quiet.place(label))
}

/// Whoever is asked to choose is shown what was recorded here. Says whether anybody is asked.
pub(crate) fn watch(tracer: &Arc<Tracer>) -> bool {
    if let Some(chooser) = current().as_deref().map(|quiet| &quiet.chooser)
        && let Some(chooser) = lock(chooser).as_mut()
    {
        chooser.tracer = Some(tracer.clone());
        return true;
    }
    false
}

/// Those that wait on this thread.
#[derive(Default)]
struct Scheduler {
    waiting: Mutex<Vec<Arc<ParkingPlace>>>,
    chooser: Mutex<Option<TaskChooser>>,
    looks: Mutex<IdleProbe>,
    /// Has the runtime look once more whether there is anything to do.
    again: Notify,
}

struct TaskChooser {
    choose: ChooseTasks,
    tracer: Option<Arc<Tracer>>,
    start: Option<Instant>,
}

/// How often what the runtime runs in front of all tasks was polled.
#[derive(Debug, Default)]
struct IdleProbe {
    polls: usize,
    /// That number when there was nothing to run last.
    idle_at: Option<usize>,
}

/// Where a task waits.
struct ParkingPlace {
    who: ParkedTask,
    state: Mutex<ParkingState>,
}

#[derive(Default)]
struct ParkingState {
    released: bool,
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the place up, also when the task is killed there.
struct ParkingGuard(Arc<Scheduler>, Arc<ParkingPlace>);

impl Drop for ParkingGuard {
    fn drop(&mut self) {
        lock(&self.0.waiting).retain(|place| !Arc::ptr_eq(place, &self.1));
    }
}

impl Scheduler {
    fn place(self: Arc<Self>, label: &'static str) -> PointHold {
        let task = tokio::task::try_id().map_or(0, number);
        let place = Arc::new(ParkingPlace {
            who: ParkedTask { task, label },
            state: Mutex::default(),
        });
        lock(&self.waiting).push(place.clone());
        let leaves = ParkingGuard(self, place);
        Box::pin(async move {
            poll_fn(|context| {
                let mut state = lock(&leaves.1.state);
                state.waker = Some(context.waker().clone());
                if state.released {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        })
    }

    /// Called when there is no task to run. What runs in front of the tasks may have been woken
    /// meanwhile: it is quiet when a second look finds that it was not polled since the first.
    fn idle(&self) {
        if lock(&self.waiting).is_empty() {
            return;
        }
        let is_quiet = {
            let mut looks = lock(&self.looks);
            let polls = looks.polls;
            looks.idle_at.replace(polls) == Some(polls)
        };
        if !is_quiet {
            self.again.notify_one();
            return;
        }
        lock(&self.looks).idle_at = None;
        let waiting = lock(&self.waiting).clone();
        let chosen = self.choose(&waiting).into_iter();
        let chosen: Vec<&Arc<ParkingPlace>> = chosen.map(|number| &waiting[number]).collect();
        let stays = |place: &Arc<ParkingPlace>| !chosen.iter().any(|it| Arc::ptr_eq(it, place));
        lock(&self.waiting).retain(stays);
        // Whoever is woken first has its turn first.
        for place in chosen {
            let mut state = lock(&place.state);
            state.released = true;
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn choose(&self, waiting: &[Arc<ParkingPlace>]) -> Vec<usize> {
        let mut chooser = lock(&self.chooser);
        let Some(chooser) = chooser.as_mut() else {
            return vec![0];
        };
        let now = Instant::now();
        let elapsed = now - *chooser.start.get_or_insert(now);
        let waiting: Vec<ParkedTask> = waiting.iter().map(|place| place.who.clone()).collect();
        let choose = &mut chooser.choose;
        let mut chosen = |entries: &[Entry]| {
            choose(ChoicePoint {
                waiting: &waiting,
                entries,
                elapsed,
            })
        };
        match &chooser.tracer {
            Some(tracer) => tracer.with(0, chosen),
            None => chosen(&[]),
        }
    }
}

fn number(id: tokio::task::Id) -> u64 {
    id.to_string().parse().unwrap_or(0)
}

/// No other runtime of this thread finds what this one has set up.
struct CurrentGuard;

impl Drop for CurrentGuard {
    fn drop(&mut self) {
        SCHEDULER.with(|quiet| quiet.borrow_mut().take());
    }
}

pub(super) fn block_on<F: Future>(choose: Option<ChooseTasks>, future: F) -> io::Result<F::Output> {
    let quiet = Arc::new(Scheduler {
        chooser: Mutex::new(choose.map(|choose| TaskChooser {
            choose,
            tracer: None,
            start: None,
        })),
        ..Scheduler::default()
    });
    let looks = quiet.clone();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.on_thread_park(move || looks.idle());
    let runtime = builder.enable_time().start_paused(true).build()?;
    SCHEDULER.with(|current| *current.borrow_mut() = Some(quiet.clone()));
    let _forgets = CurrentGuard;
    let again = quiet.clone();
    runtime.spawn(async move {
        loop {
            again.again.notified().await;
        }
    });
    let mut future = pin!(future);
    Ok(runtime.block_on(poll_fn(|context| {
        lock(&quiet.looks).polls += 1;
        future.as_mut().poll(context)
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn record_label(said: Arc<Mutex<Vec<&'static str>>>, label: &'static str, turns: usize) {
        wait(label).await;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        lock(&said).push(label);
    }

    fn order(choose: Option<ChooseTasks>) -> (Vec<&'static str>, Duration) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let all = said.clone();
        let elapsed = block_on(choose, async move {
            let start = Instant::now();
            let one = tokio::spawn(record_label(all.clone(), "one", 5));
            let two = tokio::spawn(record_label(all.clone(), "two", 0));
            for _ in 0..9 {
                tokio::task::yield_now().await;
            }
            lock(&all).push("busy");
            one.await.unwrap();
            two.await.unwrap();
            start.elapsed()
        });
        let said = lock(&said).clone();
        (said, elapsed.unwrap())
    }

    #[test]
    fn who_waits_goes_on_when_nobody_else_can_and_the_clock_stands_still() {
        assert_eq!(order(None), (vec!["busy", "one", "two"], Duration::ZERO));
    }

    #[test]
    fn one_can_go_on_right_behind_another() {
        let both: ChooseTasks = Box::new(|_| vec![1, 0]);
        let (said, elapsed) = order(Some(both));
        assert_eq!(
            (said, elapsed),
            (vec!["busy", "two", "one"], Duration::ZERO)
        );
    }

    #[test]
    fn who_goes_on_can_be_chosen() {
        let last: ChooseTasks = Box::new(|moment| vec![moment.waiting.len() - 1]);
        let (said, elapsed) = order(Some(last));
        assert_eq!(
            (said, elapsed),
            (vec!["busy", "two", "one"], Duration::ZERO)
        );
    }
}
