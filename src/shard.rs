//! `--shard`: which part of the work this machine does, as the user or the CI engine says.

use cutpoint_explore::Shard;

/// The variables in which a CI engine says which of its jobs this is.
struct Engine {
    name: &'static str,
    index: &'static str,
    /// The number of its first job.
    first: usize,
    total: &'static str,
}

/// The user's own variables, which override those of an engine.
const OWN: Engine = Engine {
    name: "cutpoint's own",
    index: "CUTPOINT_SHARD_INDEX",
    first: 0,
    total: "CUTPOINT_SHARD_TOTAL",
};

const ENGINES: &[Engine] = &[
    Engine {
        name: "GitLab",
        index: "CI_NODE_INDEX",
        first: 1,
        total: "CI_NODE_TOTAL",
    },
    Engine {
        name: "AWS Batch",
        index: "AWS_BATCH_JOB_ARRAY_INDEX",
        first: 0,
        total: "AWS_BATCH_JOB_ARRAY_SIZE",
    },
    // Kubernetes sets a pod's index, but not how many pods there are.
    Engine {
        name: "Kubernetes",
        index: "JOB_COMPLETION_INDEX",
        first: 0,
        total: OWN.total,
    },
    Engine {
        name: "Slurm",
        index: SLURM_INDEX,
        first: 0,
        total: SLURM_TOTAL,
    },
];

const SLURM_INDEX: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_TOTAL: &str = "SLURM_ARRAY_TASK_COUNT";
const SLURM_MIN: &str = "SLURM_ARRAY_TASK_MIN";
const SLURM_MAX: &str = "SLURM_ARRAY_TASK_MAX";

/// What the user can do if no variable says the part.
const INSTEAD: &str =
    "give --shard K/N, or set CUTPOINT_SHARD_INDEX (from 0) and CUTPOINT_SHARD_TOTAL";

/// Looks up a variable.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The value of `--shard`: `2/5`, or `auto` for what the variables of the CI engine say.
pub fn shard(text: &str) -> Result<Shard, String> {
    match text {
        "auto" => from_engine(&|name| std::env::var(name).ok()),
        part => part.parse().map_err(|error| {
            format!("{error}; `auto` takes it from the variables of the CI engine")
        }),
    }
}

fn from_engine(environment: Environment<'_>) -> Result<Shard, String> {
    // An empty variable counts as not set.
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if set(OWN.index).is_some() {
        return OWN.shard(&set);
    }
    let mut running = ENGINES.iter().filter(|engine| set(engine.index).is_some());
    match (running.next(), running.next()) {
        (Some(one), Some(other)) => Err(format!(
            "{} of {} and {} of {} are both set; {INSTEAD}",
            one.index, one.name, other.index, other.name
        )),
        (Some(engine), None) if engine.index == SLURM_INDEX => slurm(&set),
        (Some(engine), None) => engine.shard(&set),
        (None, _) => {
            let half = ENGINES
                .iter()
                .find_map(|engine| Some((engine, set(engine.total)?)));
            match half {
                // GitLab sets it in each job; a job that is not parallel has no index.
                Some((engine, total)) if engine.name == "GitLab" && total == "1" => {
                    Ok(Shard::WHOLE)
                }
                Some((engine, _)) => Err(format!(
                    "{} is set, but no variable says which part this is, such as {}; {INSTEAD}",
                    engine.total, engine.index
                )),
                None => Err(format!("no variable of a CI engine is set; {INSTEAD}")),
            }
        }
    }
}

impl Engine {
    fn shard(&self, set: Environment<'_>) -> Result<Shard, String> {
        let index = number(set, self.index, self.index)?;
        let total = number(set, self.total, self.index)?;
        let place = index.checked_sub(self.first);
        let shard = place.and_then(|place| Shard::new(place, total));
        shard.ok_or_else(|| {
            format!(
                "{} is {index}, which is not a part of {total} ({}) counted from {}; {INSTEAD}",
                self.index, self.total, self.first
            )
        })
    }
}

/// An array may start anywhere and go in steps, as in `--array=10-30:5`, or be a list without order, in
/// which a task cannot know how many come before it.
fn slurm(set: Environment<'_>) -> Result<Shard, String> {
    let read = |name| number(set, name, SLURM_INDEX);
    let [id, min] = [read(SLURM_INDEX)?, read(SLURM_MIN)?];
    let [max, count] = [read(SLURM_MAX)?, read(SLURM_TOTAL)?];
    let place = || {
        let (offset, span) = (id.checked_sub(min)?, max.checked_sub(min)?);
        let gaps = count.checked_sub(1)?;
        if gaps == 0 || span % gaps != 0 {
            return (gaps == 0 && span == 0 && offset == 0).then_some(0);
        }
        let step = span / gaps;
        (step > 0 && offset % step == 0).then(|| offset / step)
    };
    let shard = place().and_then(|place| Shard::new(place, count));
    shard.ok_or_else(|| {
        format!(
            "task {id} of {count} tasks from {min} to {max} has no place at even steps; submit the \
             array as a range such as --array=0-4, or {INSTEAD}"
        )
    })
}

/// A variable that is needed because another one is set.
fn number(set: Environment<'_>, name: &str, because: &str) -> Result<usize, String> {
    let Some(value) = set(name) else {
        return Err(format!("{because} is set, but {name} is not; {INSTEAD}"));
    };
    let number = value.trim().parse();
    number.map_err(|_| format!("{name} is `{value}`, which is not a number; {INSTEAD}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part by these variables, written like `A=1 B=2`.
    fn auto(variables: &str) -> Result<String, String> {
        let pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.collect();
        let look_up = |name: &str| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        from_engine(&look_up).map(|shard| shard.to_string())
    }

    #[track_caller]
    fn is(variables: &str, shard: &str) {
        assert_eq!(auto(variables).as_deref(), Ok(shard), "{variables}");
    }

    #[track_caller]
    fn refused(variables: &str, says: &str) {
        let error = auto(variables).unwrap_err();
        assert!(error.starts_with(says), "{variables}: {error}");
        assert!(error.ends_with(INSTEAD), "{variables}: {error}");
    }

    #[test]
    fn every_engine_counts_in_its_own_way() {
        is("CUTPOINT_SHARD_INDEX=0 CUTPOINT_SHARD_TOTAL=3", "1/3");
        is("JOB_COMPLETION_INDEX=4 CUTPOINT_SHARD_TOTAL=5", "5/5");
        is("CI_NODE_INDEX=1 CI_NODE_TOTAL=4", "1/4");
        is("CI_NODE_INDEX=4 CI_NODE_TOTAL=4", "4/4");
        is("CI_NODE_TOTAL=1", "1/1");
        is(
            "AWS_BATCH_JOB_ARRAY_INDEX=9 AWS_BATCH_JOB_ARRAY_SIZE=10",
            "10/10",
        );
        is(
            "CI_NODE_INDEX=2 CI_NODE_TOTAL=4 CUTPOINT_SHARD_INDEX=0 CUTPOINT_SHARD_TOTAL=2",
            "1/2",
        );
        is(
            "CUTPOINT_SHARD_INDEX= CI_NODE_INDEX=2 CI_NODE_TOTAL=2",
            "2/2",
        );
        // A job of GitLab that is not parallel may be a pod of an indexed job.
        is(
            "CI_NODE_TOTAL=1 JOB_COMPLETION_INDEX=0 CUTPOINT_SHARD_TOTAL=2",
            "1/2",
        );
    }

    fn array(id: usize, min: usize, max: usize, count: usize) -> String {
        format!("{SLURM_INDEX}={id} {SLURM_MIN}={min} {SLURM_MAX}={max} {SLURM_TOTAL}={count}")
    }

    #[test]
    fn slurm_arrays_start_anywhere_and_go_in_steps() {
        is(&array(0, 0, 4, 5), "1/5");
        is(&array(5, 1, 5, 5), "5/5");
        is(&array(20, 10, 30, 5), "3/5");
        is(&array(7, 7, 7, 1), "1/1");
        // `--array=1,2,9`: the place of 2 can't be known.
        refused(&array(2, 1, 9, 3), "task 2 of 3 tasks from 1 to 9");
        refused(&array(9, 1, 5, 5), "task 9 of 5");
        refused(&array(0, 1, 5, 5), "task 0 of 5");
        refused(&array(1, 1, 5, 0), "task 1 of 0");
        refused(&array(1, 1, 3, 9), "task 1 of 9");
        refused(
            "SLURM_ARRAY_TASK_ID=1",
            "SLURM_ARRAY_TASK_ID is set, but SLURM_ARRAY_TASK_MIN",
        );
    }

    #[test]
    fn half_of_the_variables_is_refused() {
        refused("", "no variable of a CI engine is set");
        refused(
            "CUTPOINT_SHARD_INDEX=0",
            "CUTPOINT_SHARD_INDEX is set, but CUTPOINT_SHARD_TOTAL",
        );
        refused(
            "CUTPOINT_SHARD_TOTAL=2",
            "CUTPOINT_SHARD_TOTAL is set, but no variable",
        );
        refused(
            "JOB_COMPLETION_INDEX=0",
            "JOB_COMPLETION_INDEX is set, but CUTPOINT_SHARD_TOTAL",
        );
        refused(
            "CI_NODE_INDEX=1",
            "CI_NODE_INDEX is set, but CI_NODE_TOTAL is not",
        );
        refused("CI_NODE_TOTAL=2", "CI_NODE_TOTAL is set, but no variable");
        refused(
            "AWS_BATCH_JOB_ARRAY_SIZE=2",
            "AWS_BATCH_JOB_ARRAY_SIZE is set, but no variable",
        );
        refused(
            "AWS_BATCH_JOB_ARRAY_INDEX=2",
            "AWS_BATCH_JOB_ARRAY_INDEX is set, but AWS",
        );
        refused(
            "SLURM_ARRAY_TASK_COUNT=2",
            "SLURM_ARRAY_TASK_COUNT is set, but no variable",
        );
    }

    #[test]
    fn a_part_out_of_range_or_set_twice_is_refused() {
        refused(
            "CI_NODE_INDEX=0 CI_NODE_TOTAL=2",
            "CI_NODE_INDEX is 0, which is not a part of 2",
        );
        refused("CI_NODE_INDEX=3 CI_NODE_TOTAL=2", "CI_NODE_INDEX is 3");
        refused(
            "JOB_COMPLETION_INDEX=2 CUTPOINT_SHARD_TOTAL=2",
            "JOB_COMPLETION_INDEX is 2",
        );
        refused(
            "CUTPOINT_SHARD_INDEX=a CUTPOINT_SHARD_TOTAL=2",
            "CUTPOINT_SHARD_INDEX is `a`",
        );
        refused(
            "CI_NODE_INDEX=1 CI_NODE_TOTAL=-2",
            "CI_NODE_TOTAL is `-2`, which is not a number",
        );
        let both = "CI_NODE_INDEX=1 CI_NODE_TOTAL=2 JOB_COMPLETION_INDEX=0";
        refused(
            both,
            "CI_NODE_INDEX of GitLab and JOB_COMPLETION_INDEX of Kubernetes",
        );
    }

    #[test]
    fn a_part_is_written_as_a_fraction() {
        assert_eq!(shard("2/5").unwrap().to_string(), "2/5");
        assert!(
            shard("6/5")
                .unwrap_err()
                .contains("a part looks like 2/5; `auto`")
        );
    }
}
