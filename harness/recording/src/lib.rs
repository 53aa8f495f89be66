//! cutpoint recording
