//! cutpoint agent
