"""Models as the engine sees them: `forward(batch)` gives logits, `loss(logits, batch)` gives named losses."""
