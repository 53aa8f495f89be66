//! What the drivers of the reference agent share.

use std::collections::BTreeSet;

use cutpoint_agent::Defect;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, Feature};

use super::agent_kind::{ANY, MarkerForm, Offer};

/// The agent's name, as traces show it.
pub(super) const NAME: &str = "reference";
/// The tools with which its model runs commands.
pub(super) const SHELL_TOOLS: &[&str] = &["shell", "local_shell"];
/// What it writes where a turn was aborted.
pub(super) const MARKER: MarkerForm = MarkerForm { roles: &["user"] };
/// How it writes its rollouts.
pub(super) const ROLLOUT: &str = "response items, one per line";

/// How the agent is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// It runs in this process.
    pub(super) in_process: bool,
    /// It is reached through its JSON-RPC front, and not through its queues.
    pub(super) json_rpc: bool,
    /// It is the reference agent itself, with its view and its other front, and not another program
    /// with the same queue protocol.
    pub(super) is_reference: bool,
}

impl Access {
    /// What scenarios may need of the agent.
    pub(super) fn capabilities(self) -> Offer<Capability> {
        let mut can = vec![
            Capability::Shell,
            Capability::CustomTools,
            Capability::LocalShell,
            Capability::Replace,
            Capability::Steer,
            Capability::Resume,
            Capability::ServerHistory,
            Capability::ShownOutput,
            Capability::Approvals,
        ];
        if !self.json_rpc {
            can.extend([
                Capability::UserShell,
                Capability::Compact,
                Capability::Fork,
                Capability::Rollback,
                Capability::Patches,
                Capability::Questions,
                Capability::SubAgents,
                Capability::Review,
                Capability::SlowClient,
            ]);
        }
        if self.in_process {
            // Another process can't be held at its own points.
            can.push(Capability::Points);
        }
        if self.is_reference {
            can.push(Capability::JsonRpc);
        }
        if self.has_view() {
            can.push(Capability::Transcript);
        }
        can.into_iter().map(|it| (it, ANY)).collect()
    }

    /// What can be observed of the agent.
    pub(super) fn features(self) -> Offer<Feature> {
        let mut seen = vec![
            Feature::Rollout,
            Feature::RolloutTurns,
            Feature::Marker,
            Feature::TurnIds,
            Feature::CallEvents,
            Feature::Replace,
            Feature::TurnHeaders,
            Feature::SubAgents,
        ];
        if self.in_process {
            // What another process stores can't be seen as its write returns.
            seen.push(Feature::StoreLog);
        }
        if self.json_rpc {
            seen.extend([
                Feature::OpReplies,
                Feature::DeferredAnswers,
                Feature::CallerIds,
            ]);
        }
        if self.has_view() {
            seen.push(Feature::Transcript);
        }
        seen.into_iter().map(|it| (it, ANY)).collect()
    }

    /// Whether the harness has the agent's own view of its events. A client of the JSON-RPC front has
    /// none.
    fn has_view(self) -> bool {
        self.is_reference && !self.json_rpc
    }

    /// How a scenario with these needs is run on the agent.
    pub(super) fn for_needs(self, needs: &BTreeSet<Capability>) -> Self {
        let json_rpc = self.json_rpc || self.is_reference && needs.contains(&Capability::JsonRpc);
        Self { json_rpc, ..self }
    }

    /// Who is driven by the driver of that name.
    pub(super) fn info(self, name: &str, driver: &str, defects: &[Defect]) -> AgentInfo {
        let defects = defects.iter().map(|defect| defect.name().to_owned());
        AgentInfo {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: driver.to_owned(),
            features: self.features().into_iter().map(|(it, _)| it).collect(),
            defects: defects.collect(),
        }
    }
}
