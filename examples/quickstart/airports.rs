//! The source behind the cache: the airports of the world in SQLite, and what is asked about them.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Executor as _, QueryBuilder, Row as _};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

static CSV: &[u8] = include_bytes!("data/airports.csv.gz");

const EARTH_RADIUS_KM: f64 = 6371.0088;
const METRES_PER_FOOT: f64 = 0.3048;

const SCHEMA: &str = "
    CREATE TABLE airports (
        icao TEXT PRIMARY KEY, iata TEXT, name TEXT NOT NULL, country TEXT NOT NULL,
        elevation REAL NOT NULL, latitude REAL NOT NULL,
        x REAL NOT NULL, y REAL NOT NULL, z REAL NOT NULL
    );
    CREATE UNIQUE INDEX by_iata ON airports (iata);
    CREATE INDEX by_country ON airports (country, elevation);
";

// The straight line between two points of a sphere grows with the way along its surface, so that its square
// orders by distance without a single sine.
const NEAREST: &str = "
    SELECT other.icao, other.name, other.country,
           (other.x - here.x) * (other.x - here.x)
         + (other.y - here.y) * (other.y - here.y)
         + (other.z - here.z) * (other.z - here.z) AS chord2
    FROM airports AS here, airports AS other
    WHERE here.iata = ? AND other.icao <> here.icao
    ORDER BY chord2 LIMIT 20
";

// A rank needs the figures of all countries, whichever one is asked about.
const COUNTRY: &str = "
    WITH countries AS (
        SELECT country, count(*) AS airports, avg(elevation) AS mean_elevation, max(elevation) AS max_elevation,
               rank() OVER (ORDER BY count(*) DESC) AS rank_by_airports,
               rank() OVER (ORDER BY avg(elevation) DESC) AS rank_by_elevation
        FROM airports GROUP BY country
    )
    SELECT *,
           (SELECT name FROM airports WHERE country = ?1 ORDER BY latitude DESC LIMIT 1) AS northernmost,
           (SELECT name FROM airports WHERE country = ?1 ORDER BY latitude LIMIT 1) AS southernmost
    FROM countries WHERE country = ?1
";

/// One of the airports nearest to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    /// ICAO code, which every airport has.
    pub(crate) icao: String,
    /// Name.
    pub(crate) name: String,
    /// Code of the country.
    pub(crate) country: String,
    /// Distance along the surface.
    pub(crate) km: f64,
}

/// The airports of a country in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Country {
    /// How many there are.
    pub(crate) airports: i64,
    /// How many countries have more, plus one.
    pub(crate) rank_by_airports: i64,
    /// Mean elevation in metres.
    pub(crate) mean_elevation: f64,
    /// How many countries have a higher mean, plus one.
    pub(crate) rank_by_elevation: i64,
    /// Elevation of the highest in metres.
    pub(crate) max_elevation: f64,
    /// Name of the northernmost.
    pub(crate) northernmost: String,
    /// Name of the southernmost.
    pub(crate) southernmost: String,
}

/// The columns of the file that are used.
#[derive(Debug, Deserialize)]
struct Record {
    icao: String,
    iata: String,
    name: String,
    country: String,
    /// In feet.
    elevation: f64,
    lat: f64,
    lon: f64,
}

/// The database. Clones are one database.
#[derive(Clone, Debug)]
pub(crate) struct Airports {
    pool: SqlitePool,
    queries: Arc<AtomicU64>,
    // After the pool, whose files lie in it: fields are dropped in order.
    _directory: Arc<tempfile::TempDir>,
}

impl Airports {
    /// Fills a database in a temporary directory, which many can read at the same time over `connections`.
    pub(crate) async fn open(connections: u32) -> Result<Self, BoxError> {
        let directory = tempfile::tempdir()?;
        // A file with a write-ahead log: the connections of a shared database in memory would wait for each other.
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("airports.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Room for all of it, 64 MB: what is compared with the cache is the work of a query, not of a disk.
            .pragma("cache_size", "-64000");
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            // Many tasks wait for few connections here, and that is no failure.
            .acquire_timeout(Duration::from_secs(3600))
            .connect_with(options)
            .await?;

        pool.execute(SCHEMA).await?;
        let mut all = pool.begin().await?;
        for some in records()?.chunks(500) {
            QueryBuilder::new("INSERT INTO airports ")
                .push_values(some, |mut row, record| {
                    let [x, y, z] = record.on_unit_sphere();
                    row.push_bind(&record.icao)
                        .push_bind(Some(&record.iata).filter(|iata| !iata.is_empty()))
                        .push_bind(&record.name)
                        .push_bind(&record.country)
                        .push_bind(record.elevation * METRES_PER_FOOT)
                        .push_bind(record.lat)
                        .push_bind(x)
                        .push_bind(y)
                        .push_bind(z);
                })
                .build()
                .execute(&mut *all)
                .await?;
        }
        all.commit().await?;
        Ok(Self { pool, queries: Arc::default(), _directory: Arc::new(directory) })
    }

    /// The twenty airports nearest to the one with this IATA code.
    pub(crate) async fn nearest(&self, iata: &str) -> sqlx::Result<Vec<Neighbour>> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let neighbour = |row: SqliteRow| {
            let chord = row.try_get::<f64, _>("chord2")?.sqrt();
            Ok(Neighbour {
                icao: row.try_get("icao")?,
                name: row.try_get("name")?,
                country: row.try_get("country")?,
                km: 2.0 * EARTH_RADIUS_KM * (chord / 2.0).asin(),
            })
        };
        sqlx::query(NEAREST).bind(iata).try_map(neighbour).fetch_all(&self.pool).await
    }

    /// The airports of the country with this code in figures.
    pub(crate) async fn country(&self, code: &str) -> sqlx::Result<Country> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let country = |row: SqliteRow| {
            Ok(Country {
                airports: row.try_get("airports")?,
                rank_by_airports: row.try_get("rank_by_airports")?,
                mean_elevation: row.try_get("mean_elevation")?,
                rank_by_elevation: row.try_get("rank_by_elevation")?,
                max_elevation: row.try_get("max_elevation")?,
                northernmost: row.try_get("northernmost")?,
                southernmost: row.try_get("southernmost")?,
            })
        };
        sqlx::query(COUNTRY).bind(code).try_map(country).fetch_one(&self.pool).await
    }

    /// How often [`nearest`](Self::nearest) and [`country`](Self::country) have asked the database.
    pub(crate) fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Gives an airport another name.
    pub(crate) async fn rename(&self, icao: &str, name: &str) -> sqlx::Result<()> {
        let update = sqlx::query("UPDATE airports SET name = ? WHERE icao = ?").bind(name).bind(icao);
        update.execute(&self.pool).await.map(drop)
    }

    /// How many airports there are.
    pub(crate) async fn count(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM airports").fetch_one(&self.pool).await
    }

    /// The IATA codes of the airports that call themselves international.
    pub(crate) async fn international(&self) -> sqlx::Result<Vec<String>> {
        let query =
            "SELECT iata FROM airports WHERE iata NOT NULL AND name LIKE '%International%' ORDER BY iata";
        sqlx::query_scalar(query).fetch_all(&self.pool).await
    }

    /// The codes of all countries.
    pub(crate) async fn countries(&self) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar("SELECT DISTINCT country FROM airports ORDER BY country")
            .fetch_all(&self.pool)
            .await
    }

    /// Closes the files before their directory goes.
    pub(crate) async fn close(self) {
        self.pool.close().await;
    }
}

impl Record {
    fn on_unit_sphere(&self) -> [f64; 3] {
        let (latitude, longitude) = (self.lat.to_radians(), self.lon.to_radians());
        [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
    }
}

fn records() -> Result<Vec<Record>, BoxError> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(CSV).read_to_end(&mut text)?;
    Ok(csv::Reader::from_reader(text.as_slice()).into_deserialize().collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The textbook's distance, from the file's latitudes and longitudes.
    fn haversine_km(a: &Record, b: &Record) -> f64 {
        let half = |a: f64, b: f64| ((a - b).to_radians() / 2.0).sin().powi(2);
        let across = a.lat.to_radians().cos() * b.lat.to_radians().cos() * half(a.lon, b.lon);
        2.0 * EARTH_RADIUS_KM * (half(a.lat, b.lat) + across).sqrt().asin()
    }

    #[tokio::test]
    async fn the_nearest_are_those_of_the_textbook() {
        let airports = Airports::open(1).await.unwrap();
        let records = records().unwrap();
        // Both sides of the date line, near a pole, and where airports are dense.
        for iata in ["ZRH", "JFK", "NAN", "SUV", "LYR", "SYD", "GRU", "KEF"] {
            let here = records.iter().find(|record| record.iata == iata).unwrap();
            let mut naive: Vec<(f64, &str)> = records
                .iter()
                .filter(|other| other.icao != here.icao)
                .map(|other| (haversine_km(here, other), other.icao.as_str()))
                .collect();
            naive.sort_by(|a, b| a.0.total_cmp(&b.0));

            let found = airports.nearest(iata).await.unwrap();
            assert_eq!(found.len(), 20);
            for (found, (km, icao)) in found.iter().zip(naive) {
                assert_eq!(found.icao, icao, "{iata}");
                assert!((found.km - km).abs() < 0.001, "{iata} to {icao}: {} is not {km}", found.km);
            }
        }
        assert_eq!(airports.queries(), 8);
    }

    #[tokio::test]
    async fn a_country_in_figures_is_that_of_the_file() {
        let airports = Airports::open(1).await.unwrap();
        let records = records().unwrap();
        assert_eq!(airports.count().await.unwrap(), i64::try_from(records.len()).unwrap());
        let own: Vec<_> = records.iter().filter(|record| record.country == "CH").collect();
        let found = airports.country("CH").await.unwrap();
        assert_eq!(found.airports, i64::try_from(own.len()).unwrap());
        let northernmost = own.iter().max_by(|a, b| a.lat.total_cmp(&b.lat)).unwrap();
        let southernmost = own.iter().min_by(|a, b| a.lat.total_cmp(&b.lat)).unwrap();
        assert_eq!((&found.northernmost, &found.southernmost), (&northernmost.name, &southernmost.name));
        let highest = own.iter().map(|record| record.elevation).fold(f64::MIN, f64::max) * METRES_PER_FOOT;
        assert!((found.max_elevation - highest).abs() < 0.001);
        assert_eq!(airports.country("US").await.unwrap().rank_by_airports, 1);
    }

    #[tokio::test]
    async fn a_new_name_is_read_back() {
        let airports = Airports::open(2).await.unwrap();
        let nearest = airports.nearest("KEF").await.unwrap().remove(0);
        airports.rename(&nearest.icao, "Elsewhere").await.unwrap();
        assert_eq!(airports.nearest("KEF").await.unwrap()[0].name, "Elsewhere");
        airports.close().await;
    }
}
