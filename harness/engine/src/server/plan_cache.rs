//! LiveStreams that were composed before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cutpoint_protocol::request::{ResponsesRequest, ShellTool};
use cutpoint_scenario::ast::{ModelScript, ReplyEnd, ReplyPart};

use super::plan::{self, PlanError, StreamPlan};
use crate::model_script::{LoadedModel, ModelError};

/// How many streams one generation holds. When it is full, what was not wanted since the last time is
/// forgotten, so that a server which runs for days does not grow.
const PLANS_KEPT: usize = 1024;

/// Composed streams. Thousands of schedules run the same scenario, and its replies are the same each
/// time: servers that share one of these compose them once.
#[derive(Debug, Clone, Default)]
pub struct PlanCache {
    known: Arc<Mutex<Generations>>,
    /// The model that was loaded last.
    loaded: Arc<Mutex<Option<LoadedModel>>>,
}

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Key, CachedPlan>,
    old: HashMap<Key, CachedPlan>,
}

impl Generations {
    fn get(&mut self, key: &Key, parts: &[ReplyPart], end: &ReplyEnd) -> Option<StreamPlan> {
        let is_it = |known: &&CachedPlan| known.parts == parts && known.end == *end;
        if let Some(known) = self.new.get(key).filter(is_it) {
            return Some(known.plan.clone());
        }
        let (key, known) = self.old.remove_entry(key)?;
        let plan = is_it(&&known).then(|| known.plan.clone())?;
        self.put(key, known);
        Some(plan)
    }

    fn put(&mut self, key: Key, known: CachedPlan) {
        if self.new.len() == PLANS_KEPT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, known);
    }
}

/// What a stream depends on besides its parts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    response_id: String,
    model: String,
    tool: Option<ShellTool>,
    asks_approval: bool,
    /// The reply as it is written, so that those of many scenarios are not looked through.
    text: String,
}

#[derive(Debug)]
struct CachedPlan {
    parts: Vec<ReplyPart>,
    end: ReplyEnd,
    plan: StreamPlan,
}

/// A reply whose stream is wanted.
#[derive(Debug, Clone, Copy)]
pub struct ReplyToCompose<'a> {
    /// Its parts.
    pub parts: &'a [ReplyPart],
    /// How it ends.
    pub end: &'a ReplyEnd,
    /// The reply as it is written.
    pub text: &'a str,
    /// The response's id.
    pub response_id: &'a str,
    /// Whether portable `shell` calls ask for the user's approval.
    pub asks_approval: bool,
}

impl PlanCache {
    /// What a scenario's model comes to.
    ///
    /// # Errors
    /// If a recording can't be found or read.
    pub(crate) fn load(
        &self,
        model: &ModelScript,
        file: &Path,
        recordings: &Path,
    ) -> Result<LoadedModel, ModelError> {
        let mut last = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = last.as_ref()
            && loaded.is_of(model, file, recordings)
        {
            return Ok(loaded.clone());
        }
        let loaded = LoadedModel::new(model, file, recordings)?;
        *last = Some(loaded.clone());
        Ok(loaded)
    }

    /// The stream that answers a request.
    ///
    /// # Errors
    /// As [`plan::compose`].
    pub fn get(
        &self,
        wanted: ReplyToCompose<'_>,
        request: &ResponsesRequest,
    ) -> Result<StreamPlan, PlanError> {
        let ReplyToCompose {
            parts,
            end,
            text,
            response_id,
            asks_approval,
        } = wanted;
        let key = Key {
            response_id: response_id.to_owned(),
            model: request.model().to_owned(),
            tool: request.shell_tool(),
            asks_approval,
            text: text.to_owned(),
        };
        // Whole streams are put in and taken out, so a panic elsewhere leaves nothing half done.
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known().get(&key, parts, end) {
            return Ok(plan);
        }
        // Nobody waits while this one is composed; if two do the same, one of them is kept.
        let plan = plan::compose(parts, end, response_id, request, asks_approval)?;
        let composed = CachedPlan {
            parts: parts.to_vec(),
            end: end.clone(),
            plan: plan.clone(),
        };
        known().put(key, composed);
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use cutpoint_scenario::ast::ReplyPart;
    use serde_json::json;

    use super::*;

    fn frames(plans: &PlanCache, id: &str, said: &str) -> Arc<[plan::Frame]> {
        let body = json!({"model": "m", "input": "hi"}).to_string();
        let request = ResponsesRequest::parse(body.as_bytes()).unwrap();
        let text = said.to_owned();
        let wanted = ReplyToCompose {
            parts: &[ReplyPart::Text { text, chunks: 1 }],
            end: &ReplyEnd::Completed,
            text: "a reply",
            response_id: id,
            asks_approval: false,
        };
        plans.get(wanted, &request).unwrap().frames
    }

    #[test]
    fn the_same_reply_is_composed_once_and_another_one_anew() {
        let plans = PlanCache::default();
        let first = frames(&plans, "r1", "one");
        assert!(Arc::ptr_eq(&first, &frames(&plans.clone(), "r1", "one")));
        assert!(!Arc::ptr_eq(&first, &frames(&plans, "r2", "one")));
        let other = frames(&plans, "r1", "two");
        let holds = |frame: &plan::Frame| String::from_utf8_lossy(&frame.bytes).contains("two");
        assert!(other.iter().any(holds));
    }

    #[test]
    fn the_number_of_streams_is_bounded() {
        let plans = PlanCache::default();
        for number in 0..=PLANS_KEPT {
            frames(&plans, &format!("r{number}"), "one");
        }
        let known = plans.known.lock().unwrap();
        assert_eq!((known.new.len(), known.old.len()), (1, PLANS_KEPT));
    }
}
