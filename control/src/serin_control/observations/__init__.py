"""What is observed of running lanes, on its way to the judge: batches of gateways, memory of workers, golden questions.

The domain here knows no gRPC, no protobuf and no settings; what becomes of it is the business of
:class:`serin_control.rollouts.intake.Intake`.
"""
