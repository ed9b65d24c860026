//! Closed sets of labels: a variant, what it means and its label are written once.

/// Makes an enum whose variants have labels, [`Metric`](crate::metrics::Metric)'s values of one label. Variants after a
/// semicolon have one, too, and are not among `ALL`.
macro_rules! labelled {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$doc:meta])* $variant:ident => $label:literal),* $(,)?
            $(; $($(#[$other_doc:meta])* $other:ident => $other_label:literal),* $(,)?)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$doc])* $variant,)*
            $($($(#[$other_doc])* $other,)*)?
        }

        impl $name {
            /// All that are counted.
            $vis const ALL: [$name; [$($label),*].len()] = [$($name::$variant),*];

            /// The metric's label value.
            #[must_use]
            $vis const fn label(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)*
                    $($($name::$other => $other_label,)*)?
                }
            }
        }
    };
}
