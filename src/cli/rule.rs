//! Flags that choose the denoising rule and its parameters.

use vaplan_dataflows::denoising::{RULES, RuleParameters};
use vaplan_schemas::Modality;

use crate::world::changes::DenoiseRequest;

/// Denoising rule and parameters.
#[derive(Debug, Default, clap::Args)]
pub(super) struct RuleArgs {
    /// Rule by which predictions change labels [default: the store's setting, or `pld` for the first epoch]
    #[arg(long, value_name = "NAME", value_parser = RULES)]
    denoise_rule: Option<String>,
    /// Number of smallest losses whose mean is the base, from 1 [default: the store's setting, or 5 for the first epoch]
    #[arg(long, value_name = "K")]
    k: Option<u32>,
    /// Factor of the base above which a loss is abnormal, above 0 [default: the store's setting, or 10 for the first
    /// epoch]
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// Smallest difference of label and prediction, from 0 to 1, that a flip must exceed; 0 turns the guard off
    /// [default: the store's setting, or 0.5 for the first epoch]
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    guard: Option<f64>,
    /// Parameter of the denoising rule, such as alpha=4. May be repeated for other parameters; --k, --alpha and --guard are
    /// short for --parameter k=K, alpha=A and guard=G
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    parameter: Vec<(String, f64)>,
}

impl RuleArgs {
    /// The request, for these modalities.
    ///
    /// # Errors
    /// Returns an error that names a parameter that is given twice.
    pub(super) fn request(&self, modalities: Option<Vec<Modality>>) -> anyhow::Result<DenoiseRequest> {
        let named = [
            ("k", self.k.map(f64::from)),
            ("alpha", self.alpha),
            ("guard", self.guard),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let mut parameters = RuleParameters::new();
        for (name, value) in named.chain(self.parameter.iter().cloned()) {
            if let Some(before) = parameters.insert(name.clone(), value) {
                anyhow::bail!(
                    "the parameter `{name}` is given twice, as {before} and {value}, expected it once"
                );
            }
        }
        Ok(DenoiseRequest {
            rule: self.denoise_rule.clone(),
            parameters,
            modalities,
        })
    }
}

fn parameter(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` has no `=`, expected NAME=VALUE such as alpha=4"))?;
    let number = value.parse();
    let number = number.map_err(|_| format!("the value of `{name}` is `{value}`, expected a number"))?;
    Ok((name.to_owned(), number))
}
