-- A version that the shop deleted, or set back, is called so without the key of the last step: a step that failed made it
-- another version. What a person decided about an earlier one keeps its number, and is about no version any more.

UPDATE document SET disputed = jsonb_set(disputed, '{version}', to_jsonb(regexp_replace(disputed ->> 'version', ' \d+$', '')))
WHERE disputed ->> 'version' IN ('missing ' || revision, 'not ready ' || revision);

UPDATE document SET decisions = jsonb_set(decisions, '{settled}', to_jsonb(regexp_replace(decisions ->> 'settled', ' \d+$', '')))
WHERE decisions ->> 'settled' IN ('missing ' || revision, 'not ready ' || revision);

UPDATE document SET decisions = jsonb_set(decisions, '{released,deleted}', '"missing"')
WHERE decisions #>> '{released,deleted}' = 'missing ' || revision;
