-- Maximal runs of set labels, gaps and islands: within a run, segment and row number grow together.
-- An audio-visual cell is one that is set in both modalities; its score is the mean of theirs.
CREATE VIEW events AS
WITH cells AS (
    SELECT video, CAST(modality AS VARCHAR) AS modality, class, segment, score
    FROM labels
    WHERE label
    UNION ALL
    SELECT video, 'audio_visual' AS modality, class, segment, avg(score) AS score
    FROM labels
    WHERE label
    GROUP BY video, class, segment
    HAVING count(*) = 2
),
islands AS (
    SELECT *, segment - row_number() OVER (PARTITION BY video, modality, class ORDER BY segment) AS island
    FROM cells
),
runs AS (
    SELECT video, modality, class, min(segment) AS first, max(segment) + 1 AS past, avg(score) AS score
    FROM islands
    GROUP BY video, modality, class, island
)
SELECT runs.video, modality, class,
       first * segment_seconds AS onset, past * segment_seconds AS "offset", score
FROM runs
JOIN videos ON videos.video = runs.video
