# The commands of CONTRIBUTING.md under short names. Each recipe is what you would type without just.

# List the recipes.
default:
    @just --list

# Type-check everything, or one crate: just check -p cutpoint-check
check *ARGS='--workspace':
    cargo check --all-targets {{ARGS}}

# Lay out the Rust files and the scenarios.
fmt:
    cargo fmt --all
    cargo run --quiet -- fmt scenarios

# The lints, as CI runs them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The tests of one rule: just rule CALL-1
rule ID:
    cargo test -p cutpoint-check --lib {{replace(lowercase(ID), '-', '_')}}

# One test binary below tests/, with an optional filter: just test cli fmt
test NAME *FILTER:
    cargo test --test {{NAME}} -- {{FILTER}}

# Every test of the workspace.
test-all:
    cargo test --workspace

# Every scenario on the reference agent.
scenarios *ARGS:
    cargo run --quiet -- run scenarios {{ARGS}}

# Every scenario on another agent: just agent codex@0.169.0
agent NAME *ARGS:
    cargo run --quiet -- run scenarios --agent {{NAME}} {{ARGS}}

# Every planted defect, and the rules that catch it.
mutate *ARGS:
    cargo run --quiet -- mutate scenarios {{ARGS}}

# Codex from npm, into .agents/.
codex VERSION='0.169.0':
    scripts/install-codex {{VERSION}}

# Everything that CI does.
ci:
    .ci/run
