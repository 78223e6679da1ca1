-- Maximal runs of set labels. A run is found by what stays equal along it: segment minus rank.
-- `audio_visual` is set where both are; its score is the mean of the two.
WITH cells AS (
  SELECT video, modality, class, segment, score
  FROM labels
  WHERE label
  UNION ALL
  SELECT a.video, 'audio_visual' AS modality, a.class, a.segment, (a.score + v.score) / 2 AS score
  FROM labels a
  JOIN labels v ON v.video = a.video AND v.class = a.class AND v.segment = a.segment
  WHERE a.modality = 'audio' AND v.modality = 'visual' AND a.label AND v.label
),
runs AS (
  SELECT *, segment - row_number() OVER (PARTITION BY video, modality, class ORDER BY segment) AS run
  FROM cells
)
SELECT
  r.video,
  r.modality,
  r.class,
  min(r.segment) * v.segment_seconds AS onset,
  (max(r.segment) + 1) * v.segment_seconds AS "offset",
  avg(r.score) AS score
FROM runs r
JOIN videos v ON v.video = r.video
GROUP BY r.video, r.modality, r.class, r.run, v.segment_seconds
