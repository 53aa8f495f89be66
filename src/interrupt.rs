//! Ctrl-C and its kin: the first one ends the run in good order, the second one at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::console::complain;
use crate::exit_code::ExitCode;
use crate::{Failure, runtime};

/// Waits for SIGINT, SIGTERM and SIGHUP.
pub struct Interrupts {
    signals: [Signal; 3],
}

impl Interrupts {
    /// Takes the signals over from the default, which would end this process and leave agents.
    pub fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::trouble(format!("no signal handler: {error}")))
        };
        let signals = [
            take(SignalKind::interrupt())?,
            take(SignalKind::terminate())?,
            take(SignalKind::hangup())?,
        ];
        Ok(Self { signals })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The signals, for a thread that waits for nothing else.
struct Watch {
    runtime: Runtime,
    signals: Interrupts,
}

impl Watch {
    /// Waits for the next one.
    fn wait(&mut self) {
        self.runtime.block_on(self.signals.next());
    }
}

/// Takes the signals over, and hands them to a thread that ends with the process.
fn watched(watch: impl FnOnce(&mut Watch) + Send + 'static) -> Result<(), Failure> {
    let runtime = runtime()?;
    let signals = {
        let _entered = runtime.enter();
        Interrupts::new()?
    };
    std::thread::spawn(move || watch(&mut Watch { runtime, signals }));
    Ok(())
}

/// Set by the first Ctrl-C: what runs is finished, and what was found is told. The second one ends
/// the program at once.
pub fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    watched(move |signals| {
        signals.wait();
        seen.store(true, Ordering::Relaxed);
        complain!("stopping; what was found is kept. Once more to end at once");
        signals.wait();
        std::process::exit(ExitCode::Trouble as i32);
    })?;
    Ok(stop)
}

/// Ends the program at the first signal, but never in the middle of what has to be whole.
pub struct SignalGuard {
    /// What there is to say of where things stand. Held by whoever must not be interrupted.
    sentence: Arc<Mutex<&'static str>>,
}

impl SignalGuard {
    /// Takes the signals over. At one, the sentence is told, and the program ends with
    /// [`ExitCode::Trouble`].
    pub fn new(sentence: &'static str) -> Result<Self, Failure> {
        let sentence = Arc::new(Mutex::new(sentence));
        let told = sentence.clone();
        watched(move |signals| {
            signals.wait();
            let sentence = told.lock().unwrap_or_else(PoisonError::into_inner);
            complain!("interrupted: {sentence}");
            std::process::exit(ExitCode::Trouble as i32);
        })?;
        Ok(Self { sentence })
    }

    /// Does what has to be whole; from its success on, that sentence is true.
    pub fn whole<T>(
        &self,
        sentence: &'static str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut standing = self.sentence.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work()?;
        *standing = sentence;
        Ok(done)
    }
}
