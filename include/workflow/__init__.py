"""The kit of workflows: declarations, run contexts, step results. It knows no Airflow."""
