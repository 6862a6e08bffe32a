"""The verifier's words: reasons, logs, reports and hints."""
