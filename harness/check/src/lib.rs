//! cutpoint check
