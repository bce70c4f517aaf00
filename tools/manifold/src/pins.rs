//! What a library answers about pins. Without a daemon they are written down, and kept once one runs.

use manifold_catalog::{EntryId, Pin};
use manifold_vfs::{Kind, PinPolicy, PinReport, PinRule, PinTotals, PolicyId};

use crate::control::PAGE_MAX;
use crate::control::pins::{PinCounts, PinFacts, PinTrouble, Pinned, PinsFacts, Policy};
use crate::control::text::Text;
use crate::failure::{Failure, Result};
use crate::find::Look;
use crate::open::OpenLibrary;
use crate::print::visible;
use crate::time::now_ns;

impl OpenLibrary {
    /// Pins files and folders by their paths, and what a policy means.
    pub(crate) async fn pin(&self, paths: &[Text], policy: Option<Policy>) -> Result<Pinned> {
        self.check_room_for_pins()?;
        let mut pins = Vec::new();
        for path in paths {
            let found = self.find(path, Look::AtSource).await?;
            if !matches!(found.kind, Kind::File | Kind::Directory) {
                return Err(Failure::new(format!(
                    "{}: only files and folders can be pinned",
                    visible(&path.0)
                )));
            }
            pins.extend(self.vfs.parts(found.id)?.into_iter().map(|id| Pin {
                id,
                recursive: found.kind == Kind::Directory,
                policy: None,
                pinned_ns: now_ns(),
            }));
        }
        let policy = policy.map(understood).transpose()?;
        self.catalog.pin(&pins)?;
        let policy = policy
            .map(|policy| self.catalog.add_pin_policy(&policy.encode()))
            .transpose()?;
        self.vfs.pins_changed();
        Ok(Pinned {
            ids: pins.iter().map(|pin| pin.id.0).collect(),
            policy: policy.map(|id| id.0),
        })
    }

    /// Takes pins away. What was fetched stays in the cache until room is needed.
    ///
    /// What is gone from the tree has no path by which it could be named; all pins of such entries go where `gone` is set.
    pub(crate) async fn unpin(&self, paths: &[Text], policies: &[u64], gone: bool) -> Result<()> {
        let mut ids = Vec::new();
        for path in paths {
            let id = self.find(path, Look::Known).await?.id;
            let mut parts = self.vfs.parts(id)?;
            // What was made at other members after the pin has none.
            let pinned = self.all_pinned()?;
            parts.retain(|part| pinned.contains(part));
            if parts.is_empty() {
                self.check_pinned(id, path)?;
            }
            ids.extend(parts);
        }
        let known = self.catalog.pin_policies()?;
        if let Some(unknown) = policies.iter().find(|id| known.iter().all(|it| it.0.0 != **id)) {
            return Err(Failure::new(format!("there is no policy {unknown}")).hint("`manifold pins` lists them"));
        }
        if gone {
            for id in self.all_pinned()? {
                if self.catalog.tree_path(id)?.is_none() {
                    ids.push(id);
                }
            }
        }
        self.catalog.unpin(&ids)?;
        for id in policies {
            self.catalog.remove_pin_policy(PolicyId(*id))?;
        }
        self.vfs.pins_changed();
        Ok(())
    }

    /// Says what is pinned: a page from the one behind `skip` others on.
    pub(crate) async fn pins(&self, skip: u64) -> Result<PinsFacts> {
        let report = self.keeps_connections().then_some(self.vfs.pins());
        let report = match report {
            Some(report) => Some(report.await),
            None => None,
        };
        let entries = self.all_pinned()?.into_iter().map(Row::Entry);
        let policies = self.catalog.pin_policies()?;
        let policies = policies.iter().map(|(id, bytes)| Row::Policy(*id, bytes));
        let mut rows = entries
            .chain(policies)
            .skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let mut pins = Vec::new();
        for row in rows.by_ref().take(PAGE_MAX as usize) {
            pins.push(self.pin_facts(&row, report.as_ref())?);
        }
        let more = rows.next().is_some();
        Ok(PinsFacts {
            pins,
            more,
            total: report.as_ref().map(total),
            problems: report.as_ref().map_or_else(|| Ok(Vec::new()), |it| self.troubles(it))?,
            up_to_date: report.is_some_and(|it| it.up_to_date),
        })
    }

    fn all_pinned(&self) -> Result<Vec<EntryId>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.catalog.pins(after, PAGE_MAX as usize)?;
            after = page.last().map(|pin| pin.id);
            all.extend(page.iter().map(|pin| pin.id));
            if page.len() < PAGE_MAX as usize {
                return Ok(all);
            }
        }
    }

    /// Gives the sums for the status; `None` where nothing is pinned or no daemon runs.
    pub(crate) fn pin_counts(&self) -> Option<PinCounts> {
        let report = self.keeps_connections().then(|| self.vfs.pins_now())?;
        (!report.rules.is_empty()).then(|| total(&report))
    }

    fn pin_facts(&self, row: &Row<'_>, report: Option<&PinReport>) -> Result<PinFacts> {
        let counts = |rule| {
            let found = report?.rules.iter().find(|it| it.rule == rule)?;
            Some(counts(&found.totals))
        };
        Ok(match row {
            Row::Entry(id) => PinFacts {
                id: Some(id.0),
                path: self.catalog.tree_path(*id)?.map(Text),
                policy: None,
                counts: counts(PinRule::Entry(*id)),
            },
            Row::Policy(id, bytes) => {
                let policy = PinPolicy::decode(bytes).unwrap_or_default();
                PinFacts {
                    id: None,
                    path: None,
                    policy: Some(Policy {
                        id: id.0,
                        glob: Text(policy.glob),
                        larger: policy.larger,
                        smaller: policy.smaller,
                        newer_s: policy.newer_s,
                    }),
                    counts: counts(PinRule::Policy(*id)),
                }
            }
        })
    }

    fn troubles(&self, report: &PinReport) -> Result<Vec<PinTrouble>> {
        let sources = self.sources()?;
        let problems = report.problems.iter().map(|problem| PinTrouble {
            source: problem
                .source
                .and_then(|id| Some(sources.iter().find(|it| it.id == id)?.name.clone())),
            message: problem.message.clone(),
        });
        let refused = (report.refused.files > 0).then(|| PinTrouble {
            source: None,
            message: format!(
                "no room for {}: the limit for what is pinned is {} (cache.pinned_bytes)",
                crate::print::count(report.refused.files, "file"),
                crate::print::human_size(self.settings.cache.pinned_bytes)
            ),
        });
        Ok(problems.chain(refused).collect())
    }

    fn check_room_for_pins(&self) -> Result<()> {
        if self.settings.cache.disk_bytes > 0 {
            return Ok(());
        }
        Err(
            Failure::new("this library goes without a disk cache, so nothing can be pinned")
                .hint("give it one: set cache.disk_bytes in the settings, and mount anew"),
        )
    }

    fn check_pinned(&self, id: EntryId, path: &Text) -> Result<()> {
        let shown = visible(&path.0);
        match self.catalog.pin_of(id)? {
            Some(pin) if pin.id == id => Ok(()),
            Some(pin) => {
                let above = self.catalog.tree_path(pin.id)?.unwrap_or_default();
                Err(Failure::new(format!("{shown} is pinned with its folder"))
                    .hint(format!("unpin that, and pin what is to stay: {}", visible(&above))))
            }
            None => Err(Failure::new(format!("{shown} is not pinned")).hint("`manifold pins` tells what is")),
        }
    }
}

enum Row<'a> {
    Entry(EntryId),
    Policy(PolicyId, &'a [u8]),
}

fn understood(policy: Policy) -> Result<PinPolicy> {
    let policy = PinPolicy {
        glob: policy.glob.0,
        larger: policy.larger,
        smaller: policy.smaller,
        newer_s: policy.newer_s,
    };
    let checked = policy.check();
    checked.map_err(|why| Failure::usage(format!("the pattern {} makes no sense: {why}", visible(&policy.glob))))?;
    Ok(policy)
}

fn total(report: &PinReport) -> PinCounts {
    PinCounts {
        refused_files: report.refused.files,
        refused_bytes: report.refused.bytes,
        ..counts(&report.total)
    }
}

fn counts(totals: &PinTotals) -> PinCounts {
    PinCounts {
        files: totals.files,
        bytes: totals.bytes,
        cached_bytes: totals.cached_bytes,
        missing_bytes: totals.bytes - totals.cached_bytes,
        missing_files: totals.missing_files,
        unlisted: totals.unlisted,
        ..PinCounts::default()
    }
}
