//! What operators ask of a farm's coordinator.

use super::Farm;
use crate::exit::Complaint;
use flakefarm_coordinator::history::linking::Links;
use flakefarm_coordinator::http::views::{DeadPage, Submitted, SweepView, SweepsPage, Workers};
use flakefarm_coordinator::http::{
    ChannelName, Channels, Deliveries, FarmStatus, NewChannel, NewEntry, NewHook, NewRepairOutcome, NewRule,
    NewSchedule, QuarantineLog, QuarantineView, Removal, RepairSuccesses, RepairView, RepairsPage, Revived,
    ScheduleView, Schedules, TestLink,
};
use flakefarm_coordinator::repairs::RepairRequest;
use flakefarm_shared::{Class, JobId, SweepId};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something that happened to a repair.
#[derive(Debug, Deserialize)]
pub(crate) struct RepairEvent {
    pub(crate) id: i64,
    event: serde_json::Value,
}

impl RepairEvent {
    /// What it did or found, if it is that.
    pub(crate) fn line(&self) -> Option<&str> {
        self.event.get("line")?.as_str()
    }
}

impl Farm {
    pub(crate) async fn sweeps(
        &self,
        project: Option<&str>,
        state: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<SweepsPage, Complaint> {
        let limit = limit.min(1_000).to_string();
        let all =
            [("project", project), ("state", state), ("before", before), ("limit", Some(limit.as_str()))];
        self.get(&format!("v1/sweeps?{}", query(&all))).await
    }

    /// How the farm stands.
    pub(crate) async fn farm_status(&self) -> Result<FarmStatus, Complaint> {
        self.get("v1/status").await
    }

    pub(crate) async fn workers(&self) -> Result<Workers, Complaint> {
        self.get("v1/workers").await
    }

    pub(crate) async fn dead(&self, before: Option<&str>, limit: u32) -> Result<DeadPage, Complaint> {
        let limit = limit.min(1_000).to_string();
        let all = [("before", before), ("limit", Some(limit.as_str()))];
        self.get(&format!("v1/dead?{}", query(&all))).await
    }

    /// A project's quarantine.
    pub(crate) async fn quarantine(&self, project: &str) -> Result<QuarantineView, Complaint> {
        self.get(&format!("v1/quarantine?{}", query(&[("project", Some(project))]))).await
    }

    pub(crate) async fn quarantine_log(&self, project: &str) -> Result<QuarantineLog, Complaint> {
        self.get(&format!("v1/quarantine/log?{}", query(&[("project", Some(project))]))).await
    }

    pub(crate) async fn put_in_quarantine(&self, entry: &NewEntry) -> Result<(), Complaint> {
        let request = self.request(Method::POST, "v1/quarantine")?.timeout(super::TIMEOUT).json(entry);
        self.send(request).await?;
        Ok(())
    }

    /// Whether there was such an entry.
    pub(crate) async fn take_from_quarantine(&self, removal: &Removal) -> Result<bool, Complaint> {
        let request =
            self.request(Method::POST, "v1/quarantine/remove")?.timeout(super::TIMEOUT).json(removal);
        match self.send(request).await {
            Ok(_) => Ok(true),
            Err(complaint) if complaint.message.contains("is not known here") => Ok(false),
            Err(complaint) => Err(complaint),
        }
    }

    pub(crate) async fn set_quarantine_rule(&self, rule: &NewRule) -> Result<(), Complaint> {
        let request = self.request(Method::PUT, "v1/quarantine/rule")?.timeout(super::TIMEOUT).json(rule);
        self.send(request).await?;
        Ok(())
    }

    pub(crate) async fn test_links(&self, project: &str) -> Result<Links, Complaint> {
        self.get(&format!("v1/test-links?{}", query(&[("project", Some(project))]))).await
    }

    /// How a project's proposed repairs fared.
    pub(crate) async fn repair_outcomes(&self, project: &str) -> Result<RepairSuccesses, Complaint> {
        self.get(&format!("v1/repair-outcomes?{}", query(&[("project", Some(project))]))).await
    }

    pub(crate) async fn note_repair_outcome(&self, outcome: &NewRepairOutcome) -> Result<(), Complaint> {
        let request = self.request(Method::POST, "v1/repair-outcomes")?.timeout(super::TIMEOUT).json(outcome);
        self.send(request).await?;
        Ok(())
    }

    pub(crate) async fn link_tests(&self, link: &TestLink) -> Result<(), Complaint> {
        self.send(self.request(Method::POST, "v1/test-links")?.timeout(super::TIMEOUT).json(link)).await?;
        Ok(())
    }

    pub(crate) async fn unlink_tests(&self, link: &TestLink) -> Result<(), Complaint> {
        self.send(self.request(Method::POST, "v1/test-links/remove")?.timeout(super::TIMEOUT).json(link))
            .await?;
        Ok(())
    }

    pub(crate) async fn channels(&self, project: &str) -> Result<Channels, Complaint> {
        self.get(&format!("v1/channels?{}", query(&[("project", Some(project))]))).await
    }

    pub(crate) async fn put_channel(&self, channel: &NewChannel) -> Result<(), Complaint> {
        self.send(self.request(Method::POST, "v1/channels")?.timeout(super::TIMEOUT).json(channel)).await?;
        Ok(())
    }

    pub(crate) async fn remove_channel(&self, named: &ChannelName) -> Result<(), Complaint> {
        self.send(self.request(Method::POST, "v1/channels/remove")?.timeout(super::TIMEOUT).json(named))
            .await?;
        Ok(())
    }

    pub(crate) async fn try_channel(&self, named: &ChannelName) -> Result<(), Complaint> {
        self.send(self.request(Method::POST, "v1/channels/try")?.timeout(super::TIMEOUT).json(named)).await?;
        Ok(())
    }

    pub(crate) async fn set_hook(&self, hook: &NewHook) -> Result<(), Complaint> {
        self.send(self.request(Method::PUT, "v1/hooks")?.timeout(super::TIMEOUT).json(hook)).await?;
        Ok(())
    }

    /// Where a project's deliveries are to be sent.
    pub(crate) fn hook_address(&self, project: &str) -> Result<String, Complaint> {
        let mut url = self.base.join("v1/hooks/")?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().push(project);
        }
        Ok(url.to_string())
    }

    pub(crate) async fn deliveries(&self, project: &str) -> Result<Deliveries, Complaint> {
        self.get(&format!("v1/deliveries?{}", query(&[("project", Some(project))]))).await
    }

    pub(crate) async fn retry_deliveries(&self, project: &str) -> Result<Revived, Complaint> {
        let path = format!("v1/deliveries/retry?{}", query(&[("project", Some(project))]));
        Ok(self.send(self.request(Method::POST, &path)?.timeout(super::TIMEOUT)).await?.json().await?)
    }

    /// The digest, as text of a format.
    pub(crate) async fn digest(&self, project: &str, days: u16, format: &str) -> Result<String, Complaint> {
        let days = days.to_string();
        let all = [("project", Some(project)), ("days", Some(days.as_str())), ("format", Some(format))];
        let request = self.request(Method::GET, &format!("v1/digest?{}", query(&all)))?;
        Ok(self.send(request.timeout(super::TIMEOUT)).await?.text().await?)
    }

    pub(crate) async fn schedules(&self) -> Result<Schedules, Complaint> {
        self.get("v1/schedules").await
    }

    pub(crate) async fn add_schedule(&self, schedule: &NewSchedule) -> Result<ScheduleView, Complaint> {
        let request = self.request(Method::POST, "v1/schedules")?.timeout(super::TIMEOUT).json(schedule);
        Ok(self.send(request).await?.json().await?)
    }

    /// Fires a schedule now; gives the id of its sweep.
    pub(crate) async fn run_schedule(&self, id: &str) -> Result<String, Complaint> {
        let request = self.request(Method::POST, &format!("v1/schedules/{id}/run"))?.timeout(super::TIMEOUT);
        let submitted: Submitted = self.send(request).await?.json().await?;
        Ok(submitted.id)
    }

    /// Has the farm carry out a repair.
    pub(crate) async fn repair(&self, asked: &RepairRequest) -> Result<Uuid, Complaint> {
        self.ask_repair(asked).await
    }

    /// The same of what a schedule was last fired for.
    pub(crate) async fn repair_of_schedule(
        &self,
        project: &str,
        schedule: &str,
        tests: &[String],
        class: Class,
        source: &str,
    ) -> Result<Uuid, Complaint> {
        let asked = serde_json::json!({
            "project": project, "schedule": schedule, "tests": tests, "class": class, "source": source,
        });
        self.ask_repair(&asked).await
    }

    async fn ask_repair(&self, asked: &impl Serialize) -> Result<Uuid, Complaint> {
        let request = self.request(Method::POST, "v1/repairs")?.timeout(super::TIMEOUT).json(asked);
        let submitted: Submitted = self.send(request).await?.json().await?;
        Ok(submitted.id.parse()?)
    }

    /// The newest repairs that the farm carries out or has carried out.
    pub(crate) async fn repairs(&self) -> Result<RepairsPage, Complaint> {
        self.get("v1/repairs").await
    }

    /// One of them.
    pub(crate) async fn repair_view(&self, id: Uuid) -> Result<RepairView, Complaint> {
        self.get(&format!("v1/repairs/{id}")).await
    }

    /// What happened to it after the event `after`.
    pub(crate) async fn repair_events(&self, id: Uuid, after: i64) -> Result<Vec<RepairEvent>, Complaint> {
        #[derive(Deserialize)]
        struct Page {
            events: Vec<RepairEvent>,
        }
        let page: Page = self.get(&format!("v1/repairs/{id}/events?after={after}&limit=1000")).await?;
        Ok(page.events)
    }

    /// Its patch.
    pub(crate) async fn repair_patch(&self, id: Uuid) -> Result<String, Complaint> {
        let request = self.request(Method::GET, &format!("v1/repairs/{id}/patch"))?.timeout(super::TIMEOUT);
        Ok(self.send(request).await?.text().await?)
    }

    /// Accepts what it proved.
    pub(crate) async fn accept_repair(&self, id: Uuid) -> Result<RepairView, Complaint> {
        let request = self.request(Method::POST, &format!("v1/repairs/{id}/accept"))?.timeout(super::TIMEOUT);
        Ok(self.send(request).await?.json().await?)
    }

    /// Ends it.
    pub(crate) async fn cancel_repair(&self, id: Uuid) -> Result<RepairView, Complaint> {
        let request = self.request(Method::DELETE, &format!("v1/repairs/{id}"))?.timeout(super::TIMEOUT);
        Ok(self.send(request).await?.json().await?)
    }

    /// `pause` or `resume`.
    pub(crate) async fn change_schedule(&self, id: &str, action: &str) -> Result<(), Complaint> {
        let request =
            self.request(Method::POST, &format!("v1/schedules/{id}/{action}"))?.timeout(super::TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    pub(crate) async fn remove_schedule(&self, id: &str) -> Result<(), Complaint> {
        let request = self.request(Method::DELETE, &format!("v1/schedules/{id}"))?.timeout(super::TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    /// `requeue` or `discard`.
    pub(crate) async fn change_dead(&self, job: JobId, action: &str) -> Result<(), Complaint> {
        let request = self.request(Method::POST, &format!("v1/dead/{job}/{action}"))?.timeout(super::TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    /// Cancels a sweep and waits for no report; gives the word of its state.
    pub(crate) async fn cancel_only(&self, sweep: SweepId) -> Result<String, Complaint> {
        let request = self.request(Method::DELETE, &format!("v1/sweeps/{sweep}"))?.timeout(super::TIMEOUT);
        let response = self.send(request).await?;
        if response.status() == StatusCode::ACCEPTED {
            let view: SweepView = response.json().await?;
            return Ok(view.state);
        }
        Ok(self.status(sweep).await?.state)
    }
}

/// Parameters for behind a question mark; those without a value are left out.
fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish()
}
