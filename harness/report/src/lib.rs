//! cutpoint report
