"""The building blocks of workflows, such as declarations, run contexts and step results.

The modules of this package do not import Airflow.
"""
