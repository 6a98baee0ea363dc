//! What was typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::access::Why;
use crate::bucket::LockState;

/// Proves Affidavit evidence whole, or says what is not; answers questions from proven rows only.
///
/// Exit code: 0 verified, 1 findings, 2 could not judge.
#[derive(Debug, Parser)]
#[command(name = "auditor", version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verify a store: every seal, file, leaf and link between them.
    Verify(Verify),
    /// Answer an SQL question from proven rows: tables `records`, `exchanges`, `batches`, and `content` when asked.
    Query(Query),
    /// What was spent, by any columns of `exchanges`, or by `day`, `month`, `model`; forecasts, budgets, savings.
    Cost(Box<Cost>),
    /// Hand rows on: FOCUS for cost tools, OCSF for security tools, CSV, JSON lines or Parquet for all others.
    Export(Export),
    /// Hold the evidence against what providers say of usage and cost: names use that passed the gateway by.
    Reconcile(Box<Reconcile>),
    /// Evaluate every recorded policy verdict again, with the policy then in force, or with another one.
    Reperform(Box<Reperform>),
    /// Draw exchanges that nobody could foresee, with a working paper and a proof for each; or repeat a draw.
    Sample(Box<Sample>),
    /// The controls of compliance packs over proven rows: met by evidence, exceptions, or not judged and why.
    Assess(Assess),
    /// A report for people to read and print: one HTML file without scripts, signed, with its data beside it.
    Report(Box<Report>),
    /// Check a report: its signature, its bytes, and that its data gives the same page.
    CheckReport(CheckReport),
    /// Print the verifier key that signs reports; makes the key where there is none.
    ReportKey(ReportKey),
    /// Look at compliance packs.
    #[command(subcommand)]
    Pack(PackCommand),
    /// The whole story of one exchange.
    Show(Show),
    /// A page to look at in a browser: evidence, exchanges, cost and controls, read only, until told to stop.
    Serve(Box<Serve>),
    /// Write an offline proof that an exchange is in the evidence.
    Prove(Prove),
    /// Check an offline proof against a trust file.
    CheckProof(CheckProof),
    /// Hold receipts that callers kept against the proven logs: names every promised record that is not there.
    CheckReceipts(Box<CheckReceipts>),
    /// Hand over all exchanges of one end user (GDPR Article 15): content, story and proof of each, in a folder.
    Subject(Box<Subject>),
    /// Check a folder that `subject` wrote: every file against the manifest, every record and its content against proofs that
    /// are held against the trust file.
    CheckSubject(CheckSubject),
    /// Look at who was shown content, when and why.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Try whether a bucket enforces retention: with a canary that is locked for a short time. Writes to the bucket.
    Probe(Probe),
    /// Carry what this auditor has seen to another machine.
    #[command(subcommand)]
    State(StateCommand),
    /// Look at trust files.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Be a witness of others' registries: cosign what only grows (C2SP tlog-witness).
    #[command(subcommand)]
    Witness(WitnessCommand),
}

/// How a bucket is reached; credentials come from the environment, a profile or the machine's role, as with AWS tools.
#[derive(Debug, Clone, Default, Args)]
pub struct Remote {
    /// Endpoint of a store that is not AWS.
    #[arg(long, value_name = "URL", env = "AFFIDAVIT_S3_ENDPOINT")]
    pub endpoint_url: Option<String>,
    /// The region.
    #[arg(long, value_name = "NAME", env = "AFFIDAVIT_S3_REGION")]
    pub region: Option<String>,
    /// Put the bucket's name in the path and not in the host's name.
    #[arg(long, env = "AFFIDAVIT_S3_PATH_STYLE")]
    pub path_style: bool,
    /// A profile of the shared AWS configuration.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// The account that must own the bucket; also `store.owner` of the mandate.
    #[arg(long, value_name = "ACCOUNT", env = "AFFIDAVIT_S3_OWNER")]
    pub expected_bucket_owner: Option<String>,
}

/// What to verify, and against what.
#[derive(Debug, Clone, Args)]
pub struct Evidence {
    /// The store: a folder, or `s3://BUCKET/PREFIX`.
    pub store: PathBuf,
    /// How a bucket is reached.
    #[command(flatten)]
    pub remote: Remote,
    /// Of which versions in a bucket the lock state is read: `all`, or `sample:N` drawn by lot.
    #[arg(long, value_name = "all|sample:N", default_value = "all")]
    pub lock_state: LockState,
    /// The trust file; it comes from the operator over another channel, and never lies inside the store.
    #[arg(long, value_name = "FILE")]
    pub trust: PathBuf,
    /// What is required: a file of period, claims, retention, systems.
    #[arg(long, value_name = "FILE")]
    pub mandate: Option<PathBuf>,
    /// One requirement: `claim=append_only`, `retention=180d`, `system=NAME`, `from=TIME`, `to=TIME`, `witnessed=2`
    /// (organisations), `witnessed_within=1h`, `timestamped_within=1d`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub require: Vec<String>,
    /// Start of the asked interval; default: the opening of the first log.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// End of the asked interval; default: now less heartbeat bound and batch age.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// A checkpoint that a witness cosigned, from the witness itself: the store must hold as much. May be given more
    /// than once.
    #[arg(long, value_name = "FILE")]
    pub witness_note: Vec<PathBuf>,
    /// Ask the witnesses of the trust file that have a `url` what they saw last.
    #[arg(long)]
    pub ask_witnesses: bool,
    /// A key table: content is decrypted and checked. May be given more than once.
    #[arg(long, value_name = "DIR")]
    pub key_table: Vec<PathBuf>,
    /// The auditor's own memory and cache; default: `~/.local/state/affidavit-auditor`.
    #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
    pub state: Option<PathBuf>,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "A verification that was interrupted (Ctrl-C, a crash, a network that went away) goes on where it was when the \
    same command is given again within 7 days: batches that were proven are not read again while the store lists the same objects for them."
)]
pub struct Verify {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// Verify only what is new since the last visit; the versions of a bucket are listed in full all the same.
    #[arg(long)]
    pub since_last: bool,
    /// Read everything again, also what an interrupted verification had proven.
    #[arg(long, conflicts_with = "since_last")]
    pub anew: bool,
    /// Where a signed statement is written: verdict, claims and ends of the logs in a few lines, whatever the verdict is;
    /// `check-report` checks it.
    #[arg(long, value_name = "FILE")]
    pub statement: Option<PathBuf>,
    /// The key that signs the statement; default: the one of the state folder, which is made where there is none.
    #[arg(long, value_name = "FILE", requires = "statement")]
    pub key: Option<PathBuf>,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

/// `probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// The bucket: `s3://BUCKET`, or `s3://BUCKET/FOLDER` where the canaries are to go. They go under `.affidavit-probe/`
    /// there, where no bucket policy may deny deletion; the probe counts for the whole bucket.
    pub store: String,
    /// How the bucket is reached.
    #[command(flatten)]
    pub remote: Remote,
    /// How long the canaries are locked; they cannot be deleted before.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub lock: String,
    /// Leave out a row, by its name.
    #[arg(long, value_name = "ROW")]
    pub skip: Vec<String>,
    /// Where the transcript is written, as JSON.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
    /// The auditor's own memory: from it the next `verify` knows of the probe.
    #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
    pub state: Option<PathBuf>,
}

/// `access`.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Print the entries of the access ledger.
    List {
        /// How they are written.
        #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
        format: ReportFormat,
        /// The auditor's own memory.
        #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
        state: Option<PathBuf>,
    },
    /// Check that no entry was changed, removed or added: each line by its MAC, all of them in their order. Exit code 0 or 1.
    Check {
        /// The auditor's own memory.
        #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
        state: Option<PathBuf>,
    },
}

/// `state`.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Write what was last seen of every log and version to a file.
    Export {
        /// The file.
        file: PathBuf,
        /// The auditor's own memory.
        #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
        state: Option<PathBuf>,
    },
    /// Add what another auditor has seen. Nothing that is known is lowered.
    Import {
        /// The file.
        file: PathBuf,
        /// The key of the state folder that it was exported from, brought over another channel; default: this one's.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The auditor's own memory.
        #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
        state: Option<PathBuf>,
    },
}

/// Forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// For people.
    Table,
    /// Comma-separated values, made harmless to spreadsheets.
    Csv,
    /// JSON lines.
    Jsonl,
    /// Apache Parquet; needs `--out`.
    Parquet,
}

/// How an answer is written.
#[derive(Debug, Args)]
pub struct Answer {
    /// How the rows are written.
    #[arg(long, value_enum, default_value_t = AnswerFormat::Table)]
    pub format: AnswerFormat,
    /// Where the rows are written; default: standard output.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Memory for the question; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// The least and the most memory for a question, in MiB.
const MEMORY: std::ops::RangeInclusive<usize> = 16..=1 << 20;

fn memory(typed: &str) -> Result<usize, String> {
    let (least, most) = MEMORY.into_inner();
    let mib = typed.parse().ok().filter(|mib| MEMORY.contains(mib));
    mib.ok_or_else(|| format!("wanted a whole number of MiB from {least} to {most}"))
}

/// `query`.
#[derive(Debug, Args)]
#[command(
    after_help = "`--from` and `--to` say what must be proven; the tables hold all proven rows, also those of other times (`cost` and `export` \
    leave these out). Cut them in the question, as `WHERE at >= TIMESTAMP '2026-11-01T00:00:00Z'`."
)]
pub struct Query {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// The question.
    pub sql: String,
    /// Join a register of your own: `name=file.csv` (or `.parquet`, `.jsonl`). Its hash stands in the answer.
    #[arg(long, value_name = "NAME=FILE")]
    pub table: Vec<String>,
    /// Offer the table `content`: needs `--reason`, and `--key-table` unless content is not encrypted.
    #[arg(long)]
    pub content: bool,
    /// Why content is asked for.
    #[command(flatten)]
    pub why: Why,
    /// How the answer is written.
    #[command(flatten)]
    pub answer: Answer,
}

/// `cost`.
#[derive(Debug, Args)]
pub struct Cost {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// Columns to group by, as `team,model,month`; default: `consumer,model,day`, with `--savings` and `--what-if`
    /// `consumer,model`, with `--forecast` none. Currencies are never added together.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub by: Option<Vec<String>>,
    /// Another question than what was spent.
    #[command(flatten)]
    pub question: CostQuestion,
    /// The price book for `--what-if`; default: the one by which an exchange's own cost was computed, else the newest
    /// of the evidence.
    #[arg(long, value_name = "FILE", requires = "what_if")]
    pub book: Option<PathBuf>,
    /// How the answer is written.
    #[command(flatten)]
    pub answer: Answer,
}

/// What `cost` answers besides what was spent.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub struct CostQuestion {
    /// How a period will end (`2026-11`, `2026-Q4`, `2026`; default: the month in which the evidence ends).
    #[arg(long, value_name = "PERIOD", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub forecast: Option<String>,
    /// Hold what was spent against a budget: a CSV file with the columns `period`, `amount`, `currency` and any
    /// columns of `--by`; an empty cell or `*` is any value.
    #[arg(long, value_name = "FILE")]
    pub budget: Option<PathBuf>,
    /// What the providers' prompt caches saved.
    #[arg(long)]
    pub savings: bool,
    /// When the prices changed by which costs were computed.
    #[arg(long)]
    pub price_changes: bool,
    /// What the same counts would have cost at another model's prices.
    #[arg(long, value_name = "PROVIDER/MODEL")]
    pub what_if: Option<String>,
}

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// FOCUS 1.4, Cost and Usage: one row for each exchange and class of tokens, as CSV; as Parquet where `--out` ends in `.parquet`.
    Focus,
    /// OCSF 1.6 API Activity: one JSON line for each record.
    Ocsf,
    /// The table `exchanges` as comma-separated values, made harmless to spreadsheets.
    Csv,
    /// The table `exchanges` as JSON lines.
    Jsonl,
    /// The table `exchanges` as Apache Parquet; needs `--out`.
    Parquet,
}

/// `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// What is written.
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// Where it is written; default: standard output.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// FOCUS: the billing account's id; default: the deployment's name.
    #[arg(long, value_name = "ID")]
    pub billing_account: Option<String>,
    /// Memory for the question; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// Forms of an assessment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AssessFormat {
    /// For people.
    Text,
    /// For programs: everything.
    Json,
    /// A line for each control, made harmless to spreadsheets.
    Csv,
}

/// How the controls of packs are asked.
#[derive(Debug, Args)]
pub struct Asking {
    /// A register of your own that packs ask for: `sysreg=systems.csv`. Its hash stands in the answer.
    #[arg(long, value_name = "NAME=FILE")]
    pub register: Vec<String>,
    /// A name of your own that packs ask for, as `phi_class=health`; `auditor pack show` lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Only this control, by its id. May be given more than once.
    #[arg(long, value_name = "ID")]
    pub control: Vec<String>,
    /// Where all exceptions are written, as JSON lines; the answer itself holds the first of each control.
    #[arg(long, value_name = "FILE")]
    pub exceptions: Option<PathBuf>,
    /// Memory for the questions; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// `assess`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every control is a question whose rows are exceptions. `met by evidence`: there was something to look at, the \
    evidence is whole, and no row came. `not judged`: nothing to look at, a register or fact that is not there, or evidence that \
    is not whole; never a pass. No result says that somebody keeps a rule: it says what the evidence supports, and what it leaves open.\n\n\
    Exit code: 0 every control met, 1 exceptions or findings of the verification, 2 something could not be judged."
)]
pub struct Assess {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// A pack: a name (`auditor pack list`), `all`, or a file that ends in `.yaml`. May be given more than once.
    #[arg(long, value_name = "NAME|FILE", required = true)]
    pub pack: Vec<String>,
    /// How its controls are asked.
    #[command(flatten)]
    pub asking: Asking,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = AssessFormat::Text)]
    pub format: AssessFormat,
    /// Where the answer is written; default: standard output.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `report`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes FILE, the data beside it as FILE.json, and FILE.sig: a signed note (C2SP) over both. At the top stands what was \
    proven, what was not, and what to ask the operator next; then claims, coverage, volumes, cost, controls with exceptions, \
    findings, what was not checked, method, hashes. The page is made of the data alone: the same data gives the same bytes. As PDF: \
    `chromium --headless --no-pdf-header-footer --print-to-pdf=report.pdf report.html`.\n\n\
    Exit code: 0 every control met, 1 exceptions or findings of the verification, 2 something could not be judged."
)]
pub struct Report {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// The period: `2026`, `2026-Q3`, `2026-09` or `2026-09-30`; in the place of `--from` and `--to`.
    #[arg(long, value_name = "PERIOD", conflicts_with_all = ["from", "to"])]
    pub period: Option<String>,
    /// A pack, as with `assess`; without one the report has no controls. May be given more than once.
    #[arg(long, value_name = "NAME|FILE")]
    pub pack: Vec<String>,
    /// How its controls are asked.
    #[command(flatten)]
    pub asking: Asking,
    /// The key that signs; default: the one of the state folder, which is made where there is none.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Where the report is written.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
}

/// `check-report`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 as signed, 1 changed or not signed by this key, 2 made by another version of the auditor."
)]
pub struct CheckReport {
    /// The report; its data (`.json`) and signature (`.sig`) lie beside it. Or a statement of `auditor verify`.
    pub report: PathBuf,
    /// The verifier key of who signed, or a file that holds it; over another channel than the report.
    #[arg(long, value_name = "KEY|FILE")]
    pub key: String,
}

/// `report-key`.
#[derive(Debug, Args)]
pub struct ReportKey {
    /// The key's name, as signatures show it; default: `affidavit-auditor`.
    #[arg(long)]
    pub name: Option<String>,
    /// The key file; default: `report.key` in the state folder.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The auditor's own memory.
    #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
    pub state: Option<PathBuf>,
}

/// `reconcile`.
#[derive(Debug, Args)]
#[command(
    after_help = "Formats: openai-usage, openai-costs, anthropic-usage, anthropic-cost, aws-cur (sums by key, model \
    and day); bedrock-log, azure-log, vertex-log (call by call). auditor/COST.md says how each is fetched and compared."
)]
pub struct Reconcile {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// A provider's export: `FORMAT=FILE`, or `FORMAT@PROVIDER=FILE` where it is about one configured provider. May be
    /// given more than once.
    #[arg(long, value_name = "FORMAT[@PROVIDER]=FILE", required = true)]
    pub export: Vec<String>,
    /// Which provider keys the gateway uses: a CSV file with the columns `key` (its id in the export), `provider` (as
    /// configured) and, where it is not all of the provider, `target`. Use under other keys is then unrecorded.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// How much counts and costs may differ, in percent of the larger one.
    #[arg(long, value_name = "PERCENT", default_value = "0.5")]
    pub tolerance: String,
    /// Judge also days (or hours) of an export that reach beyond the asked interval, batches that may have been asked for
    /// before the evidence begins, and calls at the edges of what is proven; without it those that tell more than was recorded are only
    /// listed, and `reconciled` is not claimed.
    #[arg(long)]
    pub partial: bool,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

/// Forms of a reperformance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReperformFormat {
    /// For people: by change, team, model and rule.
    Text,
    /// For programs: everything.
    Json,
    /// A line for each exchange, made harmless to spreadsheets.
    Csv,
}

/// `reperform`.
#[derive(Debug, Args)]
#[command(
    after_help = "Policies and facts come from the evidence only: the policy whose hash the configuration in force names, and \
    caller, operation, model and bounds as the record holds them. What cannot be evaluated again is `not judged`, with the reason, \
    and counted; it is never a pass. With `--from` and `--to`, the exchanges that began in between; every log is verified all the same, from where the last run came to.\n\n\
    Exit code: 0 nothing differs, 1 differences or findings of the verification, 2 something, or all, could not be judged."
)]
pub struct Reperform {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// Evaluate this policy instead, and report which exchanges it would have refused, or let pass.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = ReperformFormat::Text)]
    pub format: ReperformFormat,
    /// Where the answer is written; default: standard output.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Memory for the question; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// What monetary-unit sampling weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SampleValue {
    /// What was booked for it: for its answer, and for what was tried before.
    Cost,
}

/// `sample`.
#[derive(Debug, Args)]
#[command(
    after_help = "The seed is SHA-256 over the roots and sizes of all proven logs, a public value that came after the newest seal, and \
    the parameters; the folder's `seed.txt` holds exactly these bytes (`sha256sum seed.txt`). Fix the parameters before the public value is known. \
    Public values (nothing is fetched; read them, and check them, where they are published):\n  \
    drand:ROUND:HEX   `randomness` of a round of drand's quicknet: https://api.drand.sh/v2/beacons/quicknet/rounds/ROUND\n  \
    nist:PULSE:HEX    `outputValue` of a pulse of NIST's beacon, chain 2: https://beacon.nist.gov/beacon/2.0/chain/2/pulse/PULSE\n  \
    text:...          any other value that all sides agreed on before: a lottery's numbers, an index at a market's close\n\n\
    Every stratum gets one item and the rest in proportion (largest remainders). With `--by-value` the sample is systematic over units of money \
    from a random start: no exchange that is worth an interval or more is left out.\n\n\
    Exit code: 0 drawn, or the check holds; 1 findings, or the check does not hold; 2 could not judge."
)]
pub struct Sample {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// How many exchanges are drawn, 1 to 10000.
    #[arg(long, value_name = "COUNT", required_unless_present = "check", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub n: Option<u64>,
    /// The public value: `drand:ROUND:HEX`, `nist:PULSE:HEX` or `text:...`.
    #[arg(long, value_name = "VALUE", required_unless_present = "check")]
    pub seed_from: Option<String>,
    /// When the public value came out, where it is not drand's: it must be later than the newest seal.
    #[arg(long, value_name = "TIME")]
    pub seed_at: Option<String>,
    /// Stratify by columns of `exchanges`, as `team,model`; also `day`, `week`, `month`.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub by: Vec<String>,
    /// Monetary-unit sampling: an exchange's chance is in proportion to its value.
    #[arg(long, value_enum, conflicts_with = "by")]
    pub by_value: Option<SampleValue>,
    /// The currency, where the population has more than one.
    #[arg(long, value_name = "CODE", requires = "by_value")]
    pub currency: Option<String>,
    /// The folder for the working papers: not there yet, or empty.
    #[arg(long, short, value_name = "DIR", required_unless_present = "check")]
    pub out: Option<PathBuf>,
    /// Repeat the draw of a folder of working papers from the proven roots, and compare. Papers say by which version they were
    /// drawn; those of another one than this build's are refused.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["n", "seed_from", "seed_at", "by", "by_value", "currency", "out"])]
    pub check: Option<PathBuf>,
    /// Memory for the questions; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// `pack`.
#[derive(Debug, Subcommand)]
pub enum PackCommand {
    /// The packs that come with the auditor.
    List,
    /// What a pack asks: registers, settings, controls.
    Show {
        /// A name, or a file that ends in `.yaml`.
        pack: String,
    },
    /// Read packs strictly, and run their cases.
    Check {
        /// Names, `all`, or files that end in `.yaml`.
        #[arg(required = true)]
        pack: Vec<String>,
    },
    /// The facts that a pack may ask, with their columns.
    Facts,
    /// The JSON Schema of a pack.
    Schema,
}

/// `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// The exchange: what `x-affidavit-exchange` said.
    pub exchange: String,
    /// Why its content is shown: needed where there is any, with `--key-table` or where it is not encrypted.
    #[command(flatten)]
    pub why: Why,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

/// `serve`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The store is verified first, and nothing is shown that is not proven; what is shown stays that of this pass until \
    somebody asks on the page to verify again. The page has no scripts, reads only, and answers GET and HEAD.\n\n\
    On loopback whoever can connect from this machine can look; `--login` asks for a login link. Others reach it only with \
    `--origin`: then every browser needs a login link of its own, which works once. The next one is always on standard error. There is no TLS: put a \
    proxy before it, listen on loopback and give its `https://` address as `--origin`.\n\n\
    Ends with SIGINT or SIGTERM."
)]
pub struct Serve {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// Where to listen; port 0 is any free one. The address is printed.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8931")]
    pub listen: SocketAddr,
    /// How others reach the page, as `https://audit.example`: needed to listen elsewhere than on loopback.
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// Ask for a login link on loopback too.
    #[arg(long)]
    pub login: bool,
    /// Packs whose controls are offered, as with `assess`; default: all that come with the auditor.
    #[arg(long, value_name = "NAME|FILE")]
    pub pack: Vec<String>,
    /// A register of your own that packs ask for: `sysreg=systems.csv`.
    #[arg(long, value_name = "NAME=FILE")]
    pub register: Vec<String>,
    /// A name of your own that packs ask for, as `phi_class=health`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Show content of exchanges too: needs `--reason`, and `--key-table` unless content is not encrypted.
    #[arg(long)]
    pub content: bool,
    /// Why content is looked at; recorded for each exchange that is opened.
    #[command(flatten)]
    pub why: Why,
    /// Memory for questions; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// `prove`.
#[derive(Debug, Args)]
pub struct Prove {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// The exchange.
    pub exchange: String,
    /// Where the bundle is written.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// Open the content too: salt and bytes of every part, readable by whoever holds the bundle. Needs `--reason`.
    #[arg(long)]
    pub content: bool,
    /// Why content is handed over.
    #[command(flatten)]
    pub why: Why,
}

/// `check-proof`.
#[derive(Debug, Args)]
pub struct CheckProof {
    /// The bundle.
    pub bundle: PathBuf,
    /// The trust file.
    #[arg(long, value_name = "FILE")]
    pub trust: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

/// `check-receipts`.
#[derive(Debug, Args)]
#[command(
    after_help = "FILE holds a receipt a line, or JSON lines as {\"exchange\": ID, \"receipt\": TEXT or [TEXT, ...]}, or the heads of \
    answers as they came (`curl -D`). A receipt is what `x-affidavit-receipt` and `x-affidavit-receipt-outcome` said.\n\n\
    Exit code: 0 every receipt is honoured, 1 findings, 2 something could not be judged, or not yet."
)]
pub struct CheckReceipts {
    /// The receipts.
    pub file: PathBuf,
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
}

/// `subject`.
#[derive(Debug, Args)]
#[command(
    after_help = "DIR gets index.html (without scripts), exchanges.csv and exchanges.json, a folder for each exchange with its story, its proof \
    and its content as it crossed, and manifest.json with the SHA-256 of every file; `check-subject` checks it. The \
    manifest and the page name everybody whom data went to, over all attempts. What was erased, or is not kept, is named. With `--from` and `--to` the exchanges that began in between.\n\n\
    Exit code: the verdict's, as with `show`."
)]
pub struct Subject {
    /// What to verify.
    #[command(flatten)]
    pub evidence: Evidence,
    /// The end user: the pseudonym as records hold it (`p:` and 32 hex digits), or the raw id with `--pseudonym-key`.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: String,
    /// The gateway's key of pseudonyms, where the raw id is given.
    #[arg(long, value_name = "FILE")]
    pub pseudonym_key: Option<PathBuf>,
    /// Why content is read; the reason stands in the manifest too.
    #[command(flatten)]
    pub why: Why,
    /// The folder: not there yet, or empty.
    #[arg(long, short, value_name = "DIR")]
    pub out: PathBuf,
    /// The key that signs the manifest (`auditor report-key` makes one); default: nobody signs it.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Memory for the questions; what is beyond it goes to disk.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = memory)]
    pub memory: usize,
}

/// `check-subject`.
#[derive(Debug, Args)]
pub struct CheckSubject {
    /// The folder.
    pub folder: PathBuf,
    /// The trust file.
    #[arg(long, value_name = "FILE")]
    pub trust: PathBuf,
    /// The verifier key of who signed the manifest, or a file that holds it; over another channel than the folder.
    #[arg(long, value_name = "KEY|FILE")]
    pub key: Option<String>,
}

/// `witness`.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make a witness's key and its state folder, and print its verifier key. The two belong together: a witness that
    /// lost its state needs another key.
    Keygen {
        /// The witness's name in its key: a URL without a scheme, as `witness.example/w1`.
        #[arg(long)]
        name: String,
        /// The key file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The state folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Answer `add-checkpoint` over HTTP until told to stop.
    Serve {
        /// The configuration.
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
}

/// `trust`.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Print what a trust file says, with its fingerprint to compare with the operator's.
    Show {
        /// The trust file.
        file: PathBuf,
    },
    /// Pin a trust file: later commands refuse another one for its deployment. Shows the difference to the pinned one.
    Add {
        /// The trust file.
        file: PathBuf,
        /// The fingerprint that the operator told: another one is refused.
        #[arg(long, value_name = "HEX")]
        fingerprint: Option<String>,
        /// Take the place of a pinned file that says something else.
        #[arg(long)]
        replace: bool,
        /// The auditor's own memory; default: `~/.local/state/affidavit-auditor`.
        #[arg(long, value_name = "DIR", env = "AFFIDAVIT_AUDITOR_STATE")]
        state: Option<PathBuf>,
    },
    /// Verify a store whose trust file names a registry, and write the trust file that names its gateways instead.
    Resolve {
        /// What to verify.
        #[command(flatten)]
        evidence: Box<Evidence>,
    },
}
